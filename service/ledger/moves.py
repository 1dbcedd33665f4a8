"""The two guarded writes through which every move of a job or an attempt goes, and the locks they need."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from service.database.tables import Attempt, Job, Slot
from service.ledger import events
from service.ledger.errors import IllegalMove, IllegalVerb, NotFound
from service.ledger.states import (
    ATTEMPT_MOVES,
    JOB_MOVES,
    AttemptEvent,
    AttemptState,
    JobEvent,
    JobState,
    Verb,
    legal_verbs,
)

UNRESERVED: dict[str, Any] = {"reserved_node": None, "preempting": False}
"""What a job gives up when it does not wait for slots any more."""

# A move returns the row as it is in the database now, whatever the session remembered of it.
_FRESH = {"synchronize_session": False, "populate_existing": True}


def lock_job(session: Session, job_id: uuid.UUID) -> Job:
    """The job as it is now, locked until the end of the transaction. Rows that refer to it can still be inserted.

    Raises:
        NotFound: there is no such job.
    """
    locked = select(Job).where(Job.id == job_id).with_for_update(key_share=True)
    job = session.scalars(locked, execution_options={"populate_existing": True}).one_or_none()
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def try_lock_job(session: Session, job_id: uuid.UUID) -> Job | None:
    """As lock_job, but None when somebody else is at this job now (or it does not exist)."""
    locked = select(Job).where(Job.id == job_id).with_for_update(key_share=True, skip_locked=True)
    return session.scalars(locked, execution_options={"populate_existing": True}).one_or_none()


def verbs_of(job: Job) -> frozenset[Verb]:
    """What may be asked of the job now."""
    return legal_verbs(
        JobState(job.state),
        cancelling=job.cancel_requested_at is not None,
        pausing=job.pause_requested_at is not None,
    )


def require(job: Job, verb: Verb) -> None:
    """Raises IllegalVerb, which names the legal ones, unless `verb` may be asked of the locked job."""
    legal = verbs_of(job)
    if verb not in legal:
        state = JobState(job.state)
        cancelling = state is JobState.RUNNING and job.cancel_requested_at is not None
        raise IllegalVerb(state, "is being cancelled" if cancelling else state.words, verb, legal)


def lock_slots(session: Session, *which: ColumnElement[bool]) -> None:
    """Lock these slots in one order for all transactions; an update of several takes them in any order."""
    ordered = select(Slot.node, Slot.index).where(*which).order_by(Slot.node, Slot.index)
    session.execute(ordered.with_for_update(key_share=True))


def move_job(
    session: Session, job: Job, event: JobEvent, *, actor: str, payload: dict[str, Any], **values: Any
) -> None:
    """Move a locked job by the table of moves, set `values` with it and write the event.

    Raises:
        IllegalMove: the table holds no such move from the job's state.
    """
    came_from = JobState(job.state)
    goes_to = JOB_MOVES.get((came_from, event))
    if goes_to is None:
        raise IllegalMove(came_from, event)
    if goes_to.terminal:
        values["finished_at"] = func.clock_timestamp()
    guarded = update(Job).where(Job.id == job.id, Job.state == came_from).values(state=goes_to, **values)
    moved = session.scalars(guarded.returning(Job), execution_options=_FRESH).one_or_none()
    assert moved is job, "the caller holds the lock, so the state cannot have changed"
    events.append(session, job, event, actor=actor, payload=payload)


def move_attempt(
    session: Session,
    attempt_id: uuid.UUID,
    event: AttemptEvent,
    *guards: ColumnElement[bool],
    actor: str,
    payload: dict[str, Any],
    **values: Any,
) -> Attempt | None:
    """Move an attempt by the table of moves if it is in a legal state and every guard holds, and write the event.

    The caller holds the job's lock. None: no row was touched, the caller is late or a ghost.
    """
    from_states = [state for state, possible in ATTEMPT_MOVES if possible is event]
    (goes_to,) = {ATTEMPT_MOVES[state, event] for state in from_states}
    if goes_to is AttemptState.ENDED:
        values |= {"ended_at": func.clock_timestamp(), "lease_expires_at": None}
    guarded = update(Attempt).where(Attempt.id == attempt_id, Attempt.state.in_(from_states), *guards)
    moved = session.scalars(
        guarded.values(state=goes_to, **values).returning(Attempt), execution_options=_FRESH
    ).one_or_none()
    if moved is not None:
        job = session.get_one(Job, moved.job_id)
        payload = {"attempt": moved.number, "node": moved.node, **payload}
        events.append(session, job, event, actor=actor, payload=payload)
    return moved


def lease_until(seconds: float) -> ColumnElement[Any]:
    """`seconds` from now by the database clock; no other clock ever decides about a lease."""
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def free_slots(session: Session, attempt: Attempt) -> None:
    """Give back the slots of an attempt that is known to have left them."""
    lock_slots(session, Slot.attempt_id == attempt.id)
    session.execute(
        update(Slot).where(Slot.attempt_id == attempt.id).values(attempt_id=None),
        execution_options={"synchronize_session": False},
    )
    events.wake_scheduler(session, f"slots of {attempt.node}")


def quarantine_slots(session: Session, attempt: Attempt) -> None:
    """Keep the slots of a lost attempt: nobody knows whether its processes are gone. They stay marked with it."""
    lock_slots(session, Slot.attempt_id == attempt.id)
    session.execute(
        update(Slot).where(Slot.attempt_id == attempt.id).values(quarantined_at=func.clock_timestamp()),
        execution_options={"synchronize_session": False},
    )
