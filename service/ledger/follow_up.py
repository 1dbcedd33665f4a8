"""What the end of an attempt means for its job: final, tried again, or cancelled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from barlow_lab.specs import open_stored
from service.database.tables import Attempt, Job
from service.ledger import events
from service.ledger.dependants import order_key, settle_dependants
from service.ledger.moves import move_job
from service.ledger.reasons import ReasonCode
from service.ledger.states import FOLLOW_UPS, AttemptOutcome, FollowUp, JobEvent, JobState

LONGEST_BACKOFF_SECONDS = 3600.0
"""Doubling ends here."""


def follow(
    session: Session,
    job: Job,
    attempt: Attempt,
    *,
    result: dict[str, Any] | None,
    error: dict[str, Any] | None,
    actor: str,
    backoff_seconds: float,
) -> None:
    """Move a running, locked job whose attempt has just ended; `backoff_seconds` is the wait before retry 1."""
    assert attempt.outcome is not None, "the attempt has ended"
    outcome, message = AttemptOutcome(attempt.outcome), attempt.message or ""
    next_step = FOLLOW_UPS[outcome]
    if next_step is FollowUp.SUCCEED:
        move_job(
            session, job, JobEvent.SUCCEEDED, actor=actor, payload={}, result=result, reason_code=None, reason=None
        )
    elif next_step is FollowUp.FAIL:
        _fail(session, job, outcome, message, error, actor)
    elif job.cancel_requested_at is not None:
        _obey(session, job, JobEvent.CANCELLED, ReasonCode.CANCELLED, actor)
    elif next_step is not FollowUp.REQUEUE and _retries_are_used_up(session, job, next_step, outcome):
        _fail(session, job, outcome, f"{message} (after {_count(job.restarts, 'retry', 'retries')})", error, actor)
    elif job.pause_requested_at is not None:
        counted = 0 if next_step is FollowUp.REQUEUE else 1
        values = {"pause_requested_at": None, "restarts": job.restarts + counted}
        _obey(session, job, JobEvent.PAUSED, ReasonCode.PAUSED, actor, **values)
    elif next_step is FollowUp.REQUEUE:
        _requeue(session, job, attempt, f"{message} ({outcome})" if message else str(outcome), actor)
    else:
        _retry(session, job, message or str(outcome), actor, backoff_seconds)
    if JobState(job.state).terminal:
        settle_dependants(session, job)


def _fail(
    session: Session, job: Job, outcome: AttemptOutcome, message: str, error: dict[str, Any] | None, actor: str
) -> None:
    shown = {"class": outcome, "log_tail": [], "traceback": None, **(error or {}), "message": message}
    payload = {"error": shown}
    move_job(session, job, JobEvent.FAILED, actor=actor, payload=payload, error=shown, reason_code=None, reason=None)


def _obey(session: Session, job: Job, event: JobEvent, code: ReasonCode, actor: str, **values: Any) -> None:
    assert job.reason is not None, "a request stores who asked"
    reason = {"reason_code": code, "reason": {"actor": job.reason["actor"]}}
    move_job(session, job, event, actor=actor, payload=reason, **reason, **values)


def _requeue(session: Session, job: Job, attempt: Attempt, why: str, actor: str) -> None:
    reason: dict[str, Any] = {"reason_code": ReasonCode.REQUEUED, "reason": {"why": why}}
    values: dict[str, Any] = {"queued_at": func.clock_timestamp()}
    if attempt.preempted_for is not None:
        by = session.get_one(Job, attempt.preempted_for)
        reason = {"reason_code": ReasonCode.PREEMPTED, "reason": {"by": {"id": str(by.id), "name": by.name}}}
        # It waits anew: with its former place it would stand before the job it made room for.
        values["order_key"] = order_key(job.priority)
    move_job(session, job, JobEvent.REQUEUED, actor=actor, payload=reason, **values, **reason)
    events.wake_scheduler(session, str(job.id))


def _retry(session: Session, job: Job, why: str, actor: str, backoff_seconds: float) -> None:
    # 2.0 ** 100, the most restarts a spec may ask for, is still a float.
    wait = min(backoff_seconds * 2.0**job.restarts, LONGEST_BACKOFF_SECONDS)
    now = session.scalars(select(func.clock_timestamp())).one()
    not_before = now + timedelta(seconds=wait)
    data = {"retry": job.restarts + 1, "of": _max_restarts(job), "until": not_before.isoformat(), "why": why}
    reason = {"reason_code": ReasonCode.BACKING_OFF, "reason": data}
    move_job(
        session,
        job,
        JobEvent.RETRIED,
        actor=actor,
        payload=reason,
        restarts=job.restarts + 1,
        queued_at=now,
        not_before=not_before,
        **reason,
    )


def _retries_are_used_up(session: Session, job: Job, next_step: FollowUp, outcome: AttemptOutcome) -> bool:
    if next_step is FollowUp.RETRY_ONCE:
        same = select(func.count()).where(Attempt.job_id == job.id, Attempt.outcome == outcome)
        if session.scalars(same).one() > 1:  # this attempt is one of them
            return True
    return job.restarts >= _max_restarts(job)


def _max_restarts(job: Job) -> int:
    return open_stored(job.spec).run.max_restarts


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
