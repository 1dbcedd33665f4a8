"""Attempts whose worker cannot speak for them any more: found by their leases, ended without it."""

from __future__ import annotations

import uuid
from typing import Protocol

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from service.database.tables import Attempt, Job
from service.ledger.attempts import SCHEDULER
from service.ledger.follow_up import follow
from service.ledger.moves import free_slots, lock_job, move_attempt, quarantine_slots, try_lock_job
from service.ledger.reasons import ReasonCode
from service.ledger.states import AttemptEvent, AttemptOutcome, AttemptState


class Complete(Protocol):
    """Ends attempts by what their trainers left on the volume; the ledger itself reads no file."""

    def __call__(self, session: Session, attempt: Attempt, *guards: ColumnElement[bool], actor: str) -> bool:
        """End an accepted attempt by its outcome.json if there is one and the guards hold; says whether it did."""


def expired(session: Session) -> list[uuid.UUID]:
    """Live attempts whose lease has run out, longest ago first."""
    late = select(Attempt.id).where(
        Attempt.state != AttemptState.ENDED, Attempt.lease_expires_at < func.clock_timestamp()
    )
    return list(session.scalars(late.order_by(Attempt.lease_expires_at)))


def reap(session: Session, attempt_id: uuid.UUID, complete: Complete) -> Attempt | None:
    """End an attempt whose lease has run out, by its trainer's own words if there are any.

    Else its job is queued again, which is not counted as a retry. One that nobody accepted gives its slots back; the
    slots of one that ran are quarantined, as its processes may still be there.
    None: it was renewed or ended in the meantime, or somebody is at its job now.
    """
    job_id = session.scalars(select(Attempt.job_id).where(Attempt.id == attempt_id)).one()
    job = try_lock_job(session, job_id)
    if job is None:
        return None
    attempt = session.get_one(Attempt, attempt_id, populate_existing=True)
    if attempt.state == AttemptState.PLACED:
        message = f"node {attempt.node} did not accept the job in time"
    else:
        message = f"lost node {attempt.node}: its lease was not renewed in time"
    late = Attempt.lease_expires_at < func.clock_timestamp()
    return _lose(session, job, attempt, late, message=message, actor=SCHEDULER, complete=complete)


def lose_all_on(session: Session, node: str, message: str, complete: Complete) -> None:
    """End every live attempt of a node whose worker is known to be gone."""
    _lose_where(session, node, Attempt.state != AttemptState.ENDED, message=message, complete=complete)


def return_placed_on(session: Session, node: str, message: str) -> None:
    """Take back what was placed on a node that was told to go: it ends as `drained`."""

    def never(session: Session, attempt: Attempt, *guards: ColumnElement[bool], actor: str) -> bool:
        raise AssertionError("a placed attempt has left nothing")

    placed = Attempt.state == AttemptState.PLACED
    _lose_where(session, node, placed, message=message, complete=never, outcome=AttemptOutcome.DRAINED)


def _lose_where(
    session: Session,
    node: str,
    which: ColumnElement[bool],
    *,
    message: str,
    complete: Complete,
    outcome: AttemptOutcome = AttemptOutcome.LOST,
) -> None:
    live = select(Attempt.job_id).where(Attempt.node == node, which)
    # All jobs are locked before any dependant is: one order for all transactions.
    jobs = [lock_job(session, job_id) for job_id in session.scalars(live.order_by(Attempt.job_id)).all()]
    for job in jobs:
        held = select(Attempt).where(Attempt.job_id == job.id, Attempt.node == node, which)
        attempt = session.scalars(held, execution_options={"populate_existing": True}).one_or_none()
        if attempt is not None:
            actor = f"node:{node}"
            _lose(session, job, attempt, message=message, actor=actor, complete=complete, outcome=outcome)


def _lose(
    session: Session,
    job: Job,
    attempt: Attempt,
    *guards: ColumnElement[bool],
    message: str,
    actor: str,
    complete: Complete,
    outcome: AttemptOutcome = AttemptOutcome.LOST,
) -> Attempt | None:
    """End an attempt without its worker; `job` is locked. None: it has ended, or a guard does not hold."""
    never_ran = attempt.state == AttemptState.PLACED
    if not never_ran and complete(session, attempt, *guards, actor=actor):
        return session.get_one(Attempt, attempt.id, populate_existing=True)
    lost = move_attempt(
        session,
        attempt.id,
        AttemptEvent.RETURNED if never_ran else AttemptEvent.ENDED,
        *guards,
        actor=actor,
        payload={"outcome": outcome, "message": message},
        outcome=outcome,
        message=message,
    )
    if lost is None:
        return None
    if never_ran:
        free_slots(session, lost)
        job.reason_code, job.reason = ReasonCode.REQUEUED, {"why": message}
        session.flush()
    else:
        quarantine_slots(session, lost)
        follow(session, job, lost, result=None, error=None, actor=actor, backoff_seconds=0.0)
    return lost
