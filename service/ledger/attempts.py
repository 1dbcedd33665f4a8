"""Moves of an attempt: placed by the scheduler, accepted, renewed and ended by the worker."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select, tuple_, update
from sqlalchemy.orm import Session

from service.database.tables import NOBODY, Attempt, Job, Node, Slot
from service.ledger import events
from service.ledger.follow_up import follow
from service.ledger.moves import (
    free_slots,
    lease_until,
    lock_job,
    lock_slots,
    move_attempt,
    move_job,
    quarantine_slots,
)
from service.ledger.reasons import ReasonCode
from service.ledger.states import AttemptEvent, AttemptOutcome, AttemptState, JobEvent, JobState

SCHEDULER = "scheduler"
_ACCEPTED = (AttemptState.STARTING, AttemptState.RUNNING, AttemptState.STOPPING)
_NO_SYNC = {"synchronize_session": False}


Stop = Literal["cancel", "pause", "preempt"]
"""Why a running attempt is to write a checkpoint and leave."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """The answer to a renewal: how long the lease holds now (database clock), and what is asked of the attempt."""

    lease_expires_at: datetime
    stop: Stop | None


def place(session: Session, job: Job, slots: Sequence[Slot], *, lease_seconds: float) -> Attempt | None:
    """Give a queued, locked job these slots of one node; it starts when the node accepts within the lease.

    None, and nothing changed: the job is no longer waiting for slots, or one of them is not free any more.
    """
    assert slots, "a job needs at least one slot"
    (node,) = {slot.node for slot in slots}
    with session.begin_nested() as savepoint:
        number, live = session.execute(
            select(
                func.coalesce(func.max(Attempt.number), 0),
                func.count().filter(Attempt.state != AttemptState.ENDED),
            ).where(Attempt.job_id == job.id)
        ).one()
        if job.state != JobState.QUEUED or live:
            return None
        attempt = Attempt(
            job_id=job.id,
            number=number + 1,
            node=node,
            state=AttemptState.PLACED,
            lease_expires_at=lease_until(lease_seconds),
        )
        session.add(attempt)
        session.flush()
        chosen = tuple_(Slot.node, Slot.index).in_([(slot.node, slot.index) for slot in slots])
        lock_slots(session, chosen)
        free = (
            chosen,
            Slot.attempt_id.is_(None),
            Slot.quarantined_at.is_(None),
            Slot.retired_at.is_(None),
            # The node may have gone since the scheduler looked.
            select(Node.name).where(Node.name == node, Node.instance != NOBODY, Node.draining_at.is_(None)).exists(),
        )
        taken = session.scalars(
            update(Slot).where(*free).values(attempt_id=attempt.id).returning(Slot.index), execution_options=_NO_SYNC
        ).all()
        if len(taken) != len(slots):
            savepoint.rollback()
            return None
    job.reason_code, job.reason = ReasonCode.PLACED, {"node": node}
    job.reserved_node, job.preempting = None, False
    session.flush()
    payload = {"attempt": attempt.number, "node": node, "slots": sorted(taken)}
    events.append(session, job, "attempt_placed", actor=SCHEDULER, payload=payload)
    return attempt


def placed_on(session: Session, node: str) -> list[uuid.UUID]:
    """Attempts that wait for this node to accept them, oldest first."""
    placed = select(Attempt.id).where(Attempt.node == node, Attempt.state == AttemptState.PLACED)
    return list(session.scalars(placed.order_by(Attempt.placed_at)))


def accept(
    session: Session, attempt_id: uuid.UUID, *, node: str, instance: uuid.UUID, lease_seconds: float
) -> Attempt | None:
    """Take a placed attempt: it is starting, its job is running, and its token is the caller's.

    None: somebody accepted it before, it was cancelled or given back, it was placed on another node, or another
    worker has the node's name now.
    """
    job = _locked_job(session, attempt_id)
    if job is None:
        return None
    actor = f"node:{node}"
    attempt = move_attempt(
        session,
        attempt_id,
        AttemptEvent.ACCEPTED,
        Attempt.node == node,
        select(Node.name).where(Node.name == node, Node.instance == instance).exists(),
        actor=actor,
        payload={},
        started_at=func.clock_timestamp(),
        lease_expires_at=lease_until(lease_seconds),
    )
    if attempt is None:
        return None
    started_at = func.coalesce(Job.started_at, func.clock_timestamp())
    cleared = {"reason_code": None, "reason": None, "not_before": None}
    move_job(
        session,
        job,
        JobEvent.STARTED,
        actor=actor,
        payload={"attempt": attempt.number},
        started_at=started_at,
        **cleared,
    )
    return attempt


def running(session: Session, attempt_id: uuid.UUID, token: uuid.UUID) -> bool:
    """The ranks are up: starting → running. False: the caller is a ghost. Said twice, it is still True."""
    return _advance(session, attempt_id, token, AttemptEvent.RUNNING, AttemptState.RUNNING, {})


def stopping(session: Session, attempt_id: uuid.UUID, token: uuid.UUID, *, why: str) -> bool:
    """The ranks were told to stop. False: the caller is a ghost. Said twice, it is still True."""
    return _advance(session, attempt_id, token, AttemptEvent.STOPPING, AttemptState.STOPPING, {"why": why})


def renew(session: Session, attempt_id: uuid.UUID, token: uuid.UUID, *, lease_seconds: float) -> Renewal | None:
    """Hold the lease for `lease_seconds` from now, also an expired one that nobody has reaped. None: a ghost."""
    renewed = (
        update(Attempt)
        .where(Attempt.id == attempt_id, Attempt.token == token, Attempt.state.in_(_ACCEPTED))
        .values(lease_expires_at=lease_until(lease_seconds))
        .returning(Attempt.job_id, Attempt.lease_expires_at, Attempt.preempted_at)
    )
    row = session.execute(renewed, execution_options=_NO_SYNC).one_or_none()
    if row is None:
        return None
    asked = select(Job.cancel_requested_at, Job.pause_requested_at).where(Job.id == row.job_id)
    cancelled, paused = session.execute(asked).one()
    reasons: dict[Stop, datetime | None] = {"cancel": cancelled, "pause": paused, "preempt": row.preempted_at}
    return Renewal(row.lease_expires_at, next((why for why, at in reasons.items() if at is not None), None))


def stop_requested(session: Session, attempt_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Those of these attempts that are to stop and whose worker has not told their ranks; a renewal says why."""
    untold = (Attempt.id.in_(attempt_ids), Attempt.state.in_([AttemptState.STARTING, AttemptState.RUNNING]))
    asked = (
        Job.cancel_requested_at.is_not(None) | Job.pause_requested_at.is_not(None) | Attempt.preempted_at.is_not(None)
    )
    return list(session.scalars(select(Attempt.id).join(Job, Job.id == Attempt.job_id).where(*untold, asked)))


def end(
    session: Session,
    attempt_id: uuid.UUID,
    token: uuid.UUID,
    *guards: ColumnElement[bool],
    outcome: AttemptOutcome,
    message: str,
    result: dict[str, Any] | None,
    error: dict[str, Any] | None,
    actor: str,
    backoff_seconds: float,
    vacated: bool = True,
) -> bool:
    """End an accepted attempt; its job moves by the follow-up table.

    `error` is what the user sees if the job fails ({"class", "message", "log_tail", "traceback"}); `backoff_seconds`
    is the wait before retry 1, doubled for each further one. `vacated`: its processes are known to be gone, so its
    slots are free; else they are quarantined.
    False: the caller is a ghost, or a guard does not hold. Said twice with one outcome, it is still True.
    """
    job = _locked_job(session, attempt_id)
    if job is None:
        return False
    attempt = move_attempt(
        session,
        attempt_id,
        AttemptEvent.ENDED,
        Attempt.token == token,
        *guards,
        actor=actor,
        payload={"outcome": outcome, "message": message},
        outcome=outcome,
        message=message,
    )
    if attempt is None:
        return _is(session, attempt_id, token, AttemptState.ENDED, Attempt.outcome == outcome)
    if vacated:
        free_slots(session, attempt)
    else:
        quarantine_slots(session, attempt)
    follow(session, job, attempt, result=result, error=error, actor=actor, backoff_seconds=backoff_seconds)
    return True


def _locked_job(session: Session, attempt_id: uuid.UUID) -> Job | None:
    job_id = session.scalars(select(Attempt.job_id).where(Attempt.id == attempt_id)).one_or_none()
    return None if job_id is None else lock_job(session, job_id)


def _advance(
    session: Session,
    attempt_id: uuid.UUID,
    token: uuid.UUID,
    event: AttemptEvent,
    goes_to: AttemptState,
    payload: dict[str, Any],
) -> bool:
    job = _locked_job(session, attempt_id)
    if job is None:
        return False
    node = session.scalars(select(Attempt.node).where(Attempt.id == attempt_id)).one()
    moved = move_attempt(session, attempt_id, event, Attempt.token == token, actor=f"node:{node}", payload=payload)
    return moved is not None or _is(session, attempt_id, token, goes_to)


def _is(
    session: Session, attempt_id: uuid.UUID, token: uuid.UUID, state: AttemptState, *guards: ColumnElement[bool]
) -> bool:
    # The connection may break after a commit and before its answer; the caller asks again and is no ghost.
    there = select(Attempt.id).where(Attempt.id == attempt_id, Attempt.token == token, Attempt.state == state, *guards)
    return session.scalars(there).one_or_none() is not None
