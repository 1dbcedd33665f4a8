"""Room for a job that waits: slots of a node kept for it, and running jobs of lower priority told to leave."""

from __future__ import annotations

import uuid

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.database.tables import Attempt, Job
from service.ledger import events
from service.ledger.attempts import SCHEDULER
from service.ledger.dependants import order_key
from service.ledger.moves import free_slots, move_attempt, try_lock_job
from service.ledger.reasons import ReasonCode
from service.ledger.states import AttemptEvent, AttemptOutcome, AttemptState, JobState


def reserve(session: Session, job_id: uuid.UUID, node: str | None, *, preempting: bool) -> Job | None:
    """Keep a node's slots for a queued job, or with None give the reservation up; returns the job, locked.

    None: it does not wait for slots now (not queued, or placed since the scheduler looked), or somebody is at it now.
    """
    job = try_lock_job(session, job_id)
    if job is None or job.state != JobState.QUEUED:
        return None
    live = select(Attempt.id).where(Attempt.job_id == job_id, Attempt.state != AttemptState.ENDED)
    if session.scalar(select(live.exists())):
        return None
    job.reserved_node, job.preempting = node, preempting and node is not None
    session.flush()
    return job


def request_preemption(session: Session, attempt_id: uuid.UUID, *, by: Job) -> bool:
    """Have a live attempt of a preemptible job of lower priority than `by` make room.

    One that nobody accepted is taken back at once; else its worker has the trainer write a checkpoint and leave, and
    its job is queued again. False: it has ended or was told before, its job may not be preempted for `by`, or
    somebody is at that job now.
    """
    job_id = session.scalars(select(Attempt.job_id).where(Attempt.id == attempt_id)).one()
    job = try_lock_job(session, job_id)
    if job is None or not job.preemptible or job.priority >= by.priority:
        return False
    by_whom = {"by": {"id": str(by.id), "name": by.name}}
    told = (
        update(Attempt)
        .where(Attempt.id == attempt_id, Attempt.state != AttemptState.ENDED, Attempt.preempted_at.is_(None))
        .values(preempted_at=func.clock_timestamp(), preempted_for=by.id)
        .returning(Attempt.state)
    )
    state = session.scalars(told, execution_options={"synchronize_session": False}).one_or_none()
    if state is None:
        return False
    events.append(session, job, "preemption_requested", actor=SCHEDULER, payload=by_whom)
    if state == AttemptState.PLACED:
        message = f"made room for job {by.name}"
        returned = move_attempt(
            session, attempt_id, AttemptEvent.RETURNED, actor=SCHEDULER,
            payload={"outcome": AttemptOutcome.STOPPED, "message": message},
            outcome=AttemptOutcome.STOPPED, message=message,
        )  # fmt: skip
        assert returned is not None, "a placed attempt of a locked job stays placed"
        free_slots(session, returned)
        moved = {"reason_code": ReasonCode.PREEMPTED, "reason": by_whom, "order_key": order_key(job.priority)}
        session.execute(update(Job).where(Job.id == job.id).values(moved))
    return True
