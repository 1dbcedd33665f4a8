"""What users ask of a job that is there: cancel, pause, resume. A request is a row; the worker finds it by itself."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database.tables import Attempt, Job
from service.ledger import events
from service.ledger.dependants import settle_dependants, settle_locked
from service.ledger.moves import UNRESERVED, free_slots, lock_job, move_attempt, move_job, require
from service.ledger.reasons import ReasonCode
from service.ledger.states import AttemptEvent, AttemptOutcome, AttemptState, JobEvent, JobState, Verb


def request_cancel(session: Session, job_id: uuid.UUID, *, actor: str) -> Job:
    """Cancel a job: at once if nothing runs, else its worker finds the request within a second or two.

    A job that has ended stays as it is, and so does one whose cancel was requested before.

    Raises:
        NotFound: there is no such job.
    """
    job = lock_job(session, job_id)
    if JobState(job.state).terminal or job.cancel_requested_at is not None:
        return job
    if job.state == JobState.RUNNING:
        job.cancel_requested_at = session.scalars(select(func.clock_timestamp())).one()
        _ask(session, job, Verb.CANCEL, actor)
        return job
    _return_placed(session, job, f"cancelled by {actor}", actor)
    now = func.clock_timestamp()
    _move(session, job, JobEvent.CANCELLED, ReasonCode.CANCELLED, actor, cancel_requested_at=now)
    settle_dependants(session, job)
    return job


def request_pause(session: Session, job_id: uuid.UUID, *, actor: str) -> Job:
    """Pause a job: at once if nothing runs, else its trainer writes a checkpoint and frees the slots.

    A job that is paused stays as it is, and so does one whose pause was requested before.

    Raises:
        NotFound: there is no such job.
        IllegalVerb: it has ended, or is being cancelled.
    """
    job = lock_job(session, job_id)
    if job.state == JobState.PAUSED:
        return job
    require(job, Verb.PAUSE)
    if job.pause_requested_at is not None:
        return job
    if job.state == JobState.RUNNING:
        job.pause_requested_at = session.scalars(select(func.clock_timestamp())).one()
        _ask(session, job, Verb.PAUSE, actor)
        return job
    _return_placed(session, job, f"paused by {actor}", actor)
    _move(session, job, JobEvent.PAUSED, ReasonCode.PAUSED, actor, not_before=None)
    return job


def resume(session: Session, job_id: uuid.UUID, *, actor: str) -> Job:
    """Have a paused job go on: it is queued, or waits again for what has not succeeded yet.

    The pause of a running job is taken back; if its trainer has obeyed already, the job is queued at once instead.

    Raises:
        NotFound: there is no such job.
        IllegalVerb: it is neither paused nor about to be.
    """
    job = lock_job(session, job_id)
    require(job, Verb.RESUME)
    if job.state == JobState.RUNNING:
        job.pause_requested_at = job.reason_code = job.reason = None
        session.flush()
        events.append(session, job, "pause_withdrawn", actor=actor, payload={})
        return job
    move_job(session, job, JobEvent.RESUMED, actor=actor, payload={}, reason_code=None, reason=None)
    settle_locked(session, job)
    if JobState(job.state).terminal:
        settle_dependants(session, job)
    return job


def _ask(session: Session, job: Job, verb: Verb, actor: str) -> None:
    job.reason_code, job.reason = ReasonCode.STOPPING, {"actor": actor, "verb": verb}
    session.flush()
    events.append(session, job, f"{verb}_requested", actor=actor, payload={})


def _return_placed(session: Session, job: Job, message: str, actor: str) -> None:
    placed = select(Attempt.id).where(Attempt.job_id == job.id, Attempt.state == AttemptState.PLACED)
    for attempt_id in session.scalars(placed).all():
        # The job's lock keeps the worker from accepting in between.
        payload = {"outcome": AttemptOutcome.STOPPED, "message": message}
        returned = move_attempt(
            session, attempt_id, AttemptEvent.RETURNED, actor=actor, payload=payload,
            outcome=AttemptOutcome.STOPPED, message=message,
        )  # fmt: skip
        assert returned is not None, "a placed attempt of a locked job stays placed"
        free_slots(session, returned)


def _move(session: Session, job: Job, event: JobEvent, code: ReasonCode, actor: str, **values: Any) -> None:
    reason = {"reason_code": code, "reason": {"actor": actor}}
    move_job(session, job, event, actor=actor, payload=reason, **reason, **UNRESERVED, **values)
