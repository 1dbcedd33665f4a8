"""What the fleet can run, as far as its nodes have said."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from barlow_lab.specs import Fault, Spec
from barlow_lab.specs.catalogue import DataSetEntry, built_in_data_sets
from barlow_lab.spelling import nearest
from service.admission.data_faults import best, counted_for, faults_of_kind, faults_of_labels
from service.admission.sizes import faults_of_size
from service.database.tables import Node, Slot


@dataclass(frozen=True, slots=True)
class NodeSize:
    """One node: its slots, how many are free now, and the memory of its smallest slot in bytes."""

    name: str
    slots: int
    free: int
    slot_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes ever registered, and all data sets that any of them, or the installation itself, has."""

    nodes: list[NodeSize]
    data_sets: dict[str, DataSetEntry]
    reported: dict[str, dict[str, DataSetEntry]]
    """What each node says of a data set, by its name, the oldest registration first."""

    def images(self, spec: Spec) -> int | None:
        """Images of the split that a spec trains on, None while nobody has counted them."""
        entry = self.data_sets.get(spec.data.name)
        return None if entry is None or not counted_for(spec, entry) else entry.splits.get(spec.data.split)

    def classes(self, data_set: str) -> int | None:
        """Classes of a data set, None while nobody has reported it."""
        entry = self.data_sets.get(data_set)
        return None if entry is None else entry.classes


def load_fleet(session: Session) -> Fleet:
    """The fleet as its rows say. Where two nodes differ about a data set, `best` chooses."""
    free = func.count().filter(Slot.attempt_id.is_(None), Slot.quarantined_at.is_(None))
    sizes = (
        select(Slot.node, func.count(), free, func.min(Slot.memory_bytes))
        .where(Slot.retired_at.is_(None))
        .group_by(Slot.node)
        .order_by(Slot.node)
    )
    nodes = [NodeSize(*row) for row in session.execute(sizes)]
    reported: dict[str, dict[str, DataSetEntry]] = {}
    for node, said in session.execute(select(Node.name, Node.data_sets).order_by(Node.registered_at)):
        for data_set, entry in said.items():
            reported.setdefault(data_set, {})[node] = DataSetEntry.model_validate(entry)
    found = {data_set: best(by_node.values()) for data_set, by_node in reported.items()}
    return Fleet(nodes, found | built_in_data_sets(), reported)


def faults_in(spec: Spec, fleet: Fleet) -> list[Fault]:
    """What this fleet can never run, known before anything is queued. A fleet without nodes rules out little."""
    images = fleet.images(spec)
    entry = fleet.data_sets.get(spec.data.name)
    labels = [] if entry is None else faults_of_labels(spec, entry)
    sizes = [] if images is None else faults_of_size(spec, images, fleet.classes(spec.data.name))
    return faults_of_names(spec, fleet) + labels + sizes


_NAMED = 30

TO_ADD_DATA = (
    "To add one, write it into the datasets.yaml of a node and start its worker again: `barlow up --datasets FILE` on "
    "one machine, BARLOW_DATASETS_FILE for a worker of its own (docs/data-sets.md)"
)


def _first(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more (GET /api/v1/datasets)" if more > 0 else "")


def faults_of_names(spec: Spec, fleet: Fleet) -> list[Fault]:
    """The part of `faults_in` that holds whatever the other fields say: slots, data set, splits and annotations."""
    faults = []
    largest = max(fleet.nodes, key=lambda node: node.slots, default=None)
    if largest is not None and spec.resources.slots > largest.slots:
        faults.append(
            Fault(
                "/resources/slots",
                f"{spec.resources.slots} slots on one node, and the largest node ever seen, {largest.name}, "
                f"has {largest.slots}; ask for at most {largest.slots}",
            )
        )
    entry = fleet.data_sets.get(spec.data.name)
    if entry is None:
        if fleet.nodes:
            near = nearest(spec.data.name, fleet.data_sets)
            hint = f"did you mean {near!r}?" if near else f"known: {_first(sorted(fleet.data_sets))}"
            faults.append(Fault("/data/name", f"no node has a data set {spec.data.name!r}; {hint}. {TO_ADD_DATA}"))
        return faults
    return faults + faults_of_kind(spec, entry)
