"""What the fleet can run, as far as its nodes have said."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database.tables import Node, Slot
from trainer.specs import Fault, PretrainSpec, Spec
from trainer.specs.catalogue import DataSetEntry, built_in_data_sets


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
    reported_by: dict[str, list[str]]

    def images(self, data_set: str, split: str) -> int | None:
        """Images of a split, None while nobody has reported it."""
        entry = self.data_sets.get(data_set)
        return None if entry is None else entry.splits.get(split)


def load_fleet(session: Session) -> Fleet:
    """The fleet as its rows say. The newest registration wins where two nodes differ about a data set."""
    free = func.count().filter(Slot.attempt_id.is_(None), Slot.quarantined_at.is_(None))
    sizes = (
        select(Slot.node, func.count(), free, func.min(Slot.memory_bytes))
        .where(Slot.retired_at.is_(None))
        .group_by(Slot.node)
        .order_by(Slot.node)
    )
    nodes = [NodeSize(*row) for row in session.execute(sizes)]
    data_sets: dict[str, DataSetEntry] = {}
    reported_by: dict[str, list[str]] = {}
    for name, reported in session.execute(select(Node.name, Node.data_sets).order_by(Node.registered_at)):
        for data_set, entry in reported.items():
            data_sets[data_set] = DataSetEntry.model_validate(entry)
            reported_by.setdefault(data_set, []).append(name)
    return Fleet(nodes, data_sets | built_in_data_sets(), reported_by)


def faults_in(spec: Spec, fleet: Fleet) -> list[Fault]:
    """What this fleet can never run, known before anything is queued. A fleet without nodes rules out little."""
    images = fleet.images(spec.data.name, spec.data.split)
    return faults_of_names(spec, fleet) + ([] if images is None else _faults_of_size(spec, images))


def faults_of_names(spec: Spec, fleet: Fleet) -> list[Fault]:
    """The part of `faults_in` that holds whatever the other fields say: slots, data set and splits."""
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
            near = difflib.get_close_matches(spec.data.name, fleet.data_sets, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(fleet.data_sets))}"
            faults.append(Fault("/data/name", f"no node has a data set {spec.data.name!r}; {hint}"))
        return faults
    splits = ", ".join(f"{name} ({count:,} images)" for name, count in entry.splits.items())
    images = entry.splits.get(spec.data.split)
    if images is None:
        faults.append(Fault("/data/split", f"{spec.data.name} has no split {spec.data.split!r}; it has {splits}"))
    if not isinstance(spec, PretrainSpec) and spec.test_split not in entry.splits:
        faults.append(Fault("/test_split", f"{spec.data.name} has no split {spec.test_split!r}; it has {splits}"))
    return faults


def _faults_of_size(spec: Spec, images: int) -> list[Fault]:
    split = f"the split {spec.data.split} of {spec.data.name} has {images:,} images"
    limit = spec.data.limit
    if limit is not None and limit > images:
        return [Fault("/data/limit", f"{limit:,} is more than there are: {split}; leave it out for all of them")]
    used = limit or images
    if spec.kind == "pretrain" and spec.batch_size > used:
        return [
            Fault(
                "/batch_size",
                f"{spec.batch_size:,} is more than one epoch has: {split}; the last partial batch is dropped, "
                f"so there would be no step at all; use at most {used:,}",
            )
        ]
    if spec.kind == "knn" and spec.k > used:
        return [Fault("/k", f"{spec.k:,} neighbours of {used:,} images: {split}; use fewer")]
    return []
