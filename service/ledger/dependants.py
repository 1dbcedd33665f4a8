"""Jobs that wait for others: released when all have succeeded, cancelled when one never will."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Double, cast, func, select
from sqlalchemy.orm import Session

from service.database.tables import Job
from service.ledger import events
from service.ledger.moves import lock_job, move_job, try_lock_job
from service.ledger.reasons import ReasonCode
from service.ledger.states import JobEvent, JobState

PRIORITY_SECONDS = 600.0
"""What one point of priority is worth in the queue: ten minutes of waiting."""

LEDGER = "ledger"
"""Actor of what follows from another job's end."""


def order_key(priority: int) -> ColumnElement[float]:
    """Place in the queue of a job that is queued now, smaller first: seconds since 1970 less the priority's worth.

    Ageing is linear, so the order between two jobs never changes while they wait and one index holds it.
    """
    return cast(func.extract("epoch", func.clock_timestamp()), Double) - PRIORITY_SECONDS * priority


def dependencies(session: Session, job_ids: Sequence[uuid.UUID]) -> list[Job]:
    """The jobs of these ids, in this order; unknown ids are left out."""
    rows = session.scalars(select(Job).where(Job.id.in_(job_ids)), execution_options={"populate_existing": True})
    found = {job.id: job for job in rows}
    return [found[job_id] for job_id in job_ids if job_id in found]


def waits_for(jobs: Sequence[Job]) -> tuple[ReasonCode, dict[str, object]]:
    """The reason of a job that waits for these."""
    return ReasonCode.WAITS_FOR_JOB, {"jobs": [{"id": str(job.id), "name": job.name} for job in jobs]}


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """Those that are still to succeed."""
    return [job for job in jobs if job.state != JobState.SUCCEEDED]


def ready_to_settle(session: Session) -> list[uuid.UUID]:
    """Waiting jobs whose dependencies have all succeeded, or of which one never will."""
    candidate, dependency = Job.__table__.alias(), Job.__table__.alias()
    needed = select(1).select_from(dependency).where(dependency.c.id == func.any(candidate.c.after))
    still_open = needed.where(dependency.c.state != JobState.SUCCEEDED).exists()
    never = needed.where(dependency.c.state.in_([JobState.FAILED, JobState.CANCELLED])).exists()
    ready = select(candidate.c.id).where(candidate.c.state == JobState.WAITING, never | ~still_open)
    return list(session.scalars(ready.order_by(candidate.c.id)))


def settle(session: Session, job_id: uuid.UUID) -> JobState | None:
    """Release or cancel one waiting job, and those that waited for it. None: somebody else is at it now."""
    job = try_lock_job(session, job_id)
    if job is None:
        return None
    if job.state == JobState.WAITING:
        settle_locked(session, job)
        if JobState(job.state).terminal:
            settle_dependants(session, job)
    return JobState(job.state)


def settle_dependants(session: Session, ended: Job) -> None:
    """Release or cancel what waited for a job that has ended, and what waited for those, and so on."""
    # A job is younger than what it waits for and ids rise with age: smallest first is one locking order for all.
    heap = _waiting_for(session, ended.id)
    while heap:
        job = lock_job(session, heapq.heappop(heap))
        if job.state == JobState.WAITING:
            settle_locked(session, job)
            if JobState(job.state).terminal:
                for job_id in _waiting_for(session, job.id):
                    heapq.heappush(heap, job_id)


def _waiting_for(session: Session, job_id: uuid.UUID) -> list[uuid.UUID]:
    waiting = select(Job.id).where(Job.state == JobState.WAITING, Job.after.any_() == job_id).order_by(Job.id)
    return list(session.scalars(waiting))


def settle_locked(session: Session, job: Job) -> None:
    """Release or cancel a waiting, locked job, or say what it still waits for; its own dependants are not looked at."""
    needed = dependencies(session, job.after)
    for dependency in needed:
        if dependency.state in (JobState.FAILED, JobState.CANCELLED):
            reason = {"id": str(dependency.id), "name": dependency.name, "state": dependency.state}
            code = ReasonCode.DEPENDENCY_FAILED
            payload = {"reason_code": code, "reason": reason}
            move_job(session, job, JobEvent.CANCELLED, actor=LEDGER, payload=payload, reason_code=code, reason=reason)
            return
    if missing := unfinished(needed):
        job.reason_code, job.reason = waits_for(missing)
        session.flush()
        return
    move_job(
        session,
        job,
        JobEvent.RELEASED,
        actor=LEDGER,
        payload={},
        reason_code=None,
        reason=None,
        queued_at=func.clock_timestamp(),
        order_key=order_key(job.priority),
    )
    events.wake_scheduler(session, str(job.id))
