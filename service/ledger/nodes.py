"""GPU hosts: they register with their slots, are seen, and leave."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, delete, func, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.database.tables import NOBODY, Node, Slot
from service.ledger import events
from service.ledger.errors import NodeNameTaken, NotFound, SlotInUse
from service.ledger.losses import Complete, lose_all_on, return_placed_on
from service.ledger.moves import lock_slots

logger = logging.getLogger("service.ledger")

_NO_SYNC = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class SlotReport:
    """One slot as its node finds it. `empty`: nothing of an earlier attempt is left on it."""

    index: int
    kind: str
    device_uuid: str
    memory_bytes: int
    empty: bool = True


def is_live(lease_seconds: float) -> ColumnElement[bool]:
    """Whether a node has a worker that was seen within the lease, by the database clock."""
    recent = Node.seen_at > func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, lease_seconds)
    return recent & (Node.instance != NOBODY)


def register(
    session: Session,
    *,
    name: str,
    instance: uuid.UUID,
    versions: dict[str, Any],
    data_sets: dict[str, Any],
    cores: int,
    memory_bytes: int,
    slots: Sequence[SlotReport],
    lease_seconds: float,
    complete: Complete,
) -> None:
    """Take a node name for this worker process, with its slots as they are now; again for a change of them.

    What a former process of this name still held ends by what it left on the volume, or is lost: queued again. Slots
    that are not reported are retired; quarantined ones that are reported empty are free, free ones that are not empty
    are quarantined.

    Raises:
        NodeNameTaken: another process of this name, or of one of the devices, was seen within the lease.
    """
    row = {"versions": versions, "data_sets": data_sets, "cores": cores, "memory_bytes": memory_bytes}
    unknown = {"backbones": null()}  # the worker looks at them once it is at work
    first = insert(Node).values(name=name, instance=NOBODY, **row).on_conflict_do_nothing()
    session.execute(first)
    locked = select(Node.instance, is_live(lease_seconds).label("live")).where(Node.name == name)
    former, live = session.execute(locked.with_for_update(key_share=True)).one()
    if live and former != instance:
        raise NodeNameTaken(
            f"another worker named {name!r} was seen within {lease_seconds:g} s; stop it, wait, or set "
            "BARLOW_NODE_NAME to another name"
        )
    now = func.clock_timestamp()
    taken = {"instance": instance, "registered_at": now, "seen_at": now, "draining_at": None, **row, **unknown}
    session.execute(update(Node).where(Node.name == name).values(taken), execution_options=_NO_SYNC)
    if former != instance:
        lose_all_on(session, name, f"lost node {name}: its worker was replaced", complete)
    _store_slots(session, name, slots, lease_seconds)
    events.wake_scheduler(session, f"node {name}")


def report_data_sets(session: Session, name: str, instance: uuid.UUID, data_sets: dict[str, Any]) -> bool:
    """What a node has found out about its data sets since it registered. False: another process has the name now."""
    found = update(Node).where(Node.name == name, Node.instance == instance).values(data_sets=data_sets)
    if session.scalars(found.returning(Node.name), execution_options=_NO_SYNC).one_or_none() is None:
        return False
    events.wake_scheduler(session, f"data sets of {name}")
    return True


def report_backbones(session: Session, name: str, instance: uuid.UUID, backbones: dict[str, Any]) -> bool:
    """Which backbones a node has now. False: another process has the name."""
    found = update(Node).where(Node.name == name, Node.instance == instance).values(backbones=backbones)
    return session.scalars(found.returning(Node.name), execution_options=_NO_SYNC).one_or_none() is not None


def seen(session: Session, name: str, instance: uuid.UUID) -> bool:
    """The heartbeat of a node. False: another process has the name now."""
    beat = update(Node).where(Node.name == name, Node.instance == instance).values(seen_at=func.clock_timestamp())
    return session.scalars(beat.returning(Node.name), execution_options=_NO_SYNC).one_or_none() is not None


def begin_drain(session: Session, name: str, instance: uuid.UUID) -> bool:
    """A worker is about to go: nothing more is placed here, and what it has not accepted is placed elsewhere.

    To be said again while the worker drains: a placement may have been under way. False: another process has the name.
    """
    drains = update(Node).where(Node.name == name, Node.instance == instance, Node.draining_at.is_(None))
    session.execute(drains.values(draining_at=func.clock_timestamp()), execution_options=_NO_SYNC)
    ours = select(Node.name).where(Node.name == name, Node.instance == instance)
    if session.scalars(ours).one_or_none() is None:
        return False
    return_placed_on(session, name, f"node {name} is about to leave")
    return True


def leave(session: Session, name: str, instance: uuid.UUID, complete: Complete) -> bool:
    """A worker that runs nothing any more goes: the name is free at once. False: another process has it now.

    What was placed here meanwhile is placed elsewhere. What could not be ended while the database was away ends by
    what it left on the volume or is lost: queued again.
    """
    left = update(Node).where(Node.name == name, Node.instance == instance).values(instance=NOBODY)
    if session.scalars(left.returning(Node.name), execution_options=_NO_SYNC).one_or_none() is None:
        return False
    return_placed_on(session, name, f"node {name} has left")
    lose_all_on(session, name, f"node {name} has left", complete)
    return True


def quarantined(session: Session, node: str) -> list[Slot]:
    """Slots of a node that wait to be found empty; `attempt_id` is the lost attempt whose processes to look for."""
    return list(session.scalars(select(Slot).where(Slot.node == node, Slot.quarantined_at.is_not(None))))


def overdue_quarantines(session: Session, *, after_seconds: float) -> list[Slot]:
    """Slots that have been in quarantine for so long; each is returned once. One that somebody is at is left out."""
    long_ago = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, after_seconds)
    overdue = (Slot.quarantined_at < long_ago, Slot.quarantine_reported_at.is_(None), Slot.retired_at.is_(None))
    found = select(Slot).where(*overdue).order_by(Slot.node, Slot.index)
    slots = list(session.scalars(found.with_for_update(key_share=True, skip_locked=True)))
    for slot in slots:
        slot.quarantine_reported_at = session.scalars(select(func.clock_timestamp())).one()
    session.flush()
    return slots


def release_by_hand(session: Session, node: str, index: int, *, actor: str) -> None:
    """Free a quarantined slot on an admin's word that nothing runs there any more.

    Raises:
        NotFound: there is no such slot.
        SlotInUse: the slot is not in quarantine.
    """
    slot = session.get(Slot, (node, index), with_for_update={"key_share": True}, populate_existing=True)
    if slot is None:
        raise NotFound(f"there is no slot {index} on node {node}")
    if slot.quarantined_at is None:
        used = "runs a job; cancel the job instead" if slot.attempt_id is not None else "is free already"
        raise SlotInUse(f"slot {index} of {node} is not in quarantine: it {used}")
    logger.warning("slot %d of %s was released from quarantine by %s", index, node, actor)
    release_quarantined(session, node, [index])


def release_quarantined(session: Session, node: str, indices: Sequence[int]) -> int:
    """Free the quarantined slots among these, which their node has found empty; returns how many."""
    empty = (Slot.node == node, Slot.index.in_(indices), Slot.quarantined_at.is_not(None))
    lock_slots(session, *empty)
    free = {"attempt_id": None, "quarantined_at": None, "quarantine_reported_at": None}
    released = update(Slot).where(*empty).values(free)
    count = len(session.scalars(released.returning(Slot.index), execution_options=_NO_SYNC).all())
    if count:
        events.wake_scheduler(session, f"slots of {node}")
    return count


def _store_slots(session: Session, name: str, slots: Sequence[SlotReport], lease_seconds: float) -> None:
    devices = [slot.device_uuid for slot in slots]
    lock_slots(session, (Slot.node == name) | Slot.device_uuid.in_(devices))
    elsewhere = select(Slot.node, is_live(lease_seconds)).join(Node, Node.name == Slot.node)
    for other, live in session.execute(elsewhere.where(Slot.device_uuid.in_(devices), Slot.node != name)):
        if live:
            raise NodeNameTaken(f"a device of {name!r} belongs to the live node {other!r}; one worker per device")
    # A host that came back under another name, or whose devices were renumbered, brings its devices along.
    indices = {slot.device_uuid: slot.index for slot in slots}
    for row in session.scalars(select(Slot).where(Slot.device_uuid.in_(devices))).all():
        if (row.node, row.index) != (name, indices[row.device_uuid]):
            session.execute(delete(Slot).where(Slot.node == row.node, Slot.index == row.index))
    retired = update(Slot).where(Slot.node == name, Slot.index.not_in([slot.index for slot in slots]))
    session.execute(retired.values(retired_at=func.clock_timestamp()), execution_options=_NO_SYNC)
    for slot in slots:
        # A free slot on which something is found is nobody's to give away.
        blocked = null() if slot.empty else func.clock_timestamp()
        upsert = insert(Slot).values(
            node=name,
            index=slot.index,
            kind=slot.kind,
            device_uuid=slot.device_uuid,
            memory_bytes=slot.memory_bytes,
            quarantined_at=blocked,
        )
        facts = {
            "kind": upsert.excluded.kind,
            "uuid": upsert.excluded.uuid,
            "memory_bytes": upsert.excluded.memory_bytes,
            "quarantined_at": func.coalesce(
                Slot.quarantined_at, case((Slot.attempt_id.is_(None), upsert.excluded.quarantined_at))
            ),
            "retired_at": None,
        }
        session.execute(upsert.on_conflict_do_update(index_elements=["node", "index"], set_=facts))
    release_quarantined(session, name, [slot.index for slot in slots if slot.empty])
