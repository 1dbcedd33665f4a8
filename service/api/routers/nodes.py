"""The machines and their slots, and the data sets they have."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.specs.catalogue import built_in_data_sets
from barlow_lab.specs.data_set_uses import kinds_for
from service.admission.fleet import load_fleet
from service.api import audit
from service.api.auth import CallerDep
from service.api.deps import SessionDep, SettingsDep
from service.api.presentation import ROOT
from service.api.problems import Problem, responses
from service.api.schemas import DataSets, DataSetView, Nodes, NodeView, SlotView
from service.database.tables import NOBODY, Attempt, Node, Slot
from service.ledger.errors import NotFound, SlotInUse
from service.ledger.nodes import is_live, release_by_hand

router = APIRouter(tags=["nodes"])


@router.get("/nodes", operation_id="list_nodes", responses=responses())
def list_nodes(session: SessionDep, settings: SettingsDep) -> Nodes:
    """List the hosts that run jobs, with their slots."""
    occupied = select(Slot, Attempt.job_id).outerjoin(Attempt, Attempt.id == Slot.attempt_id)
    slots: dict[str, list[SlotView]] = {}
    there = occupied.where(Slot.retired_at.is_(None)).order_by(Slot.node, Slot.index)
    for slot, job_id in session.execute(there):
        slots.setdefault(slot.node, []).append(_slot_view(slot, job_id))
    live = is_live(settings.lease_seconds)
    return Nodes(
        items=[
            NodeView(
                name=node.name,
                live=is_up,
                seen_at=node.seen_at,
                draining_at=node.draining_at,
                words=_words(node, live=is_up),
                registered_at=node.registered_at,
                cores=node.cores,
                memory_bytes=node.memory_bytes,
                versions=node.versions,
                slots=slots.get(node.name, []),
            )
            for node, is_up in session.execute(select(Node, live).order_by(Node.name))
        ]
    )


@router.post(
    "/nodes/{node}/slots/{index}:release",
    operation_id="release_slot",
    responses=responses("not-found", "slot-not-quarantined"),
)
def release_slot(
    node: Annotated[str, Path(description="Name of a node")],
    index: Annotated[int, Path(ge=0, lt=2**63, description="Number of one of its slots")],
    request: Request,
    session: SessionDep,
    caller: CallerDep,
) -> SlotView:
    """Free a quarantined slot on your word that nothing of the lost attempt runs there any more.

    Its node frees it by itself as soon as it finds it empty; this is for a node that cannot tell.
    """
    try:
        release_by_hand(session, node, index, actor=caller.name)
    except NotFound as error:
        raise Problem("not-found", f"{error}; GET {ROOT}/nodes lists them all") from None
    except SlotInUse as error:
        raise Problem("slot-not-quarantined", str(error)) from None
    audit.record(session, request, caller, audit.SLOT_RELEASED, f"{node}/{index}")
    return _slot_view(_slot(session, node, index), None)


@router.get("/datasets", operation_id="list_datasets", responses=responses())
def list_datasets(session: SessionDep) -> DataSets:
    """List the data sets that a spec may name: those of every installation, and those that nodes have reported."""
    fleet = load_fleet(session)
    return DataSets(
        items=[
            DataSetView(
                name=name,
                splits=entry.splits,
                unlabelled=entry.unlabelled,
                classes=entry.classes,
                annotations=entry.annotations,
                kinds=kinds_for(entry.annotations),
                lists=entry.lists,
                image_size=entry.image_size,
                description=entry.description,
                built_in=name in built_in_data_sets(),
                nodes=list(fleet.reported.get(name, {})),
                checked=entry.checked,
                faults={node: said.fault for node, said in fleet.reported.get(name, {}).items() if said.fault},
                notes={node: said.notes for node, said in fleet.reported.get(name, {}).items() if said.notes},
            )
            for name, entry in sorted(fleet.data_sets.items())
        ]
    )


def _slot(session: Session, node: str, index: int) -> Slot:
    return session.get_one(Slot, (node, index), populate_existing=True)


def _slot_view(slot: Slot, job_id: UUID | None) -> SlotView:
    if slot.quarantined_at is not None:
        whose = f"of the lost job {job_id}" if job_id else "of nobody known"
        words = f"in quarantine since {_clock(slot.quarantined_at)}: a process {whose} may still be on it"
    else:
        words = f"runs job {job_id}" if job_id else "free"
    return SlotView(
        index=slot.index,
        kind=slot.kind,
        device_uuid=slot.device_uuid,
        memory_bytes=slot.memory_bytes,
        job=job_id,
        quarantined_at=slot.quarantined_at,
        words=words,
    )


def _words(node: Node, *, live: bool) -> str:
    if node.instance == NOBODY:
        return f"its worker left at {_clock(node.seen_at)}"
    if not live:
        return f"silent since {_clock(node.seen_at)}"
    if node.draining_at is not None:
        return f"is to leave since {_clock(node.draining_at)}: nothing new is placed here"
    return "up"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
