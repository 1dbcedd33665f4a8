"""The machines, and the data sets they have."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import Double, cast, func, select

from service.api.deps import SessionDep, SettingsDep
from service.api.fleet import load_fleet
from service.api.problems import responses
from service.api.schemas import DataSets, DataSetView, Nodes, NodeView, SlotView
from service.database.tables import Attempt, Node, Slot
from trainer.specs.catalogue import built_in_data_sets

router = APIRouter(tags=["fleet"])


@router.get("/nodes", operation_id="list_nodes", responses=responses())
def list_nodes(session: SessionDep, settings: SettingsDep) -> Nodes:
    """List the hosts that run jobs, with their slots."""
    occupied = (
        select(Slot, Attempt.job_id)
        .outerjoin(Attempt, Attempt.id == Slot.attempt_id)
        .where(Slot.retired_at.is_(None))
        .order_by(Slot.node, Slot.index)
    )
    slots: dict[str, list[SlotView]] = {}
    for slot, job_id in session.execute(occupied):
        slots.setdefault(slot.node, []).append(
            SlotView(
                index=slot.index,
                kind=slot.kind,
                device_uuid=slot.device_uuid,
                memory_bytes=slot.memory_bytes,
                job=job_id,
                quarantined_at=slot.quarantined_at,
            )
        )
    silence = cast(func.extract("epoch", func.now() - Node.seen_at), Double)
    return Nodes(
        items=[
            NodeView(
                name=node.name,
                live=silent < settings.lease_seconds,
                seen_at=node.seen_at,
                registered_at=node.registered_at,
                cores=node.cores,
                memory_bytes=node.memory_bytes,
                versions=node.versions,
                slots=slots.get(node.name, []),
            )
            for node, silent in session.execute(select(Node, silence).order_by(Node.name))
        ]
    )


@router.get("/datasets", operation_id="list_datasets", responses=responses())
def list_datasets(session: SessionDep) -> DataSets:
    """List the data sets that a spec may name: those of every installation, and those that nodes have reported."""
    fleet = load_fleet(session)
    return DataSets(
        items=[
            DataSetView(
                name=name,
                splits=entry.splits,
                classes=entry.classes,
                image_size=entry.image_size,
                description=entry.description,
                built_in=name in built_in_data_sets(),
                nodes=fleet.reported_by.get(name, []),
            )
            for name, entry in sorted(fleet.data_sets.items())
        ]
    )
