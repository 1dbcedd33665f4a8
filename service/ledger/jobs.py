"""Moves of a job that its users ask for: submit and cancel."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.database.tables import Attempt, Experiment, Job
from service.ledger import events
from service.ledger.dependants import dependencies, order_key, settle_dependants, unfinished, waits_for
from service.ledger.errors import DependencyFailed, JobNameTaken, NotFound
from service.ledger.moves import free_slots, lock_job, move_attempt, move_job
from service.ledger.reasons import ReasonCode
from service.ledger.states import AttemptEvent, AttemptState, JobEvent, JobState, Outcome
from trainer.specs import Spec, digest

__all__ = ["ensure_experiment", "lock_job", "request_cancel", "submit"]


def ensure_experiment(session: Session, name: str) -> Experiment:
    """The experiment of this name, made if it is new."""
    session.execute(insert(Experiment).values(name=name).on_conflict_do_nothing())
    return session.scalars(select(Experiment).where(Experiment.name == name)).one()


def submit(
    session: Session,
    *,
    experiment_id: uuid.UUID,
    spec: Spec,
    name: str | None,
    after: Sequence[uuid.UUID],
    source_job_id: uuid.UUID | None,
    actor: str,
) -> Job:
    """Add a job; it waits for `after` and for the job whose backbone it takes, if they have not succeeded yet.

    Without a name here and in the spec it is called by its kind and the end of its id.

    Raises:
        NotFound: a job to wait for does not exist.
        DependencyFailed: a job to wait for has failed or was cancelled.
        JobNameTaken: the experiment has a job of this name.
    """
    waited = list(dict.fromkeys([*after, *([source_job_id] if source_job_id else [])]))
    needed = dependencies(session, waited)
    if absent := set(waited) - {job.id for job in needed}:
        raise NotFound(f"there is no job {min(absent)} to wait for")
    for job in needed:
        if job.state in (JobState.FAILED, JobState.CANCELLED):
            raise DependencyFailed(f"job {job.name} ({job.id}) is {job.state}; retry it and wait for the new job")
    missing = unfinished(needed)
    reason_code, reason = waits_for(missing) if missing else (None, None)
    job_id = session.scalars(select(func.uuidv7())).one()
    row = {
        "id": job_id,
        "experiment_id": experiment_id,
        "source_job_id": source_job_id,
        "kind": spec.kind,
        "name": name or spec.name or f"{spec.kind}-{str(job_id)[-12:]}",
        "labels": spec.run.labels,
        "spec": spec.resolved(),
        "spec_digest": digest(spec),
        "state": JobState.WAITING if missing else JobState.QUEUED,
        "reason_code": reason_code,
        "reason": reason,
        "priority": spec.run.priority,
        "order_key": order_key(spec.run.priority),
        "slots": spec.resources.slots,
        "nodes": spec.resources.nodes,
        "after": waited,
        "queued_at": None if missing else func.clock_timestamp(),
    }
    unique = insert(Job).values(row).on_conflict_do_nothing(index_elements=["experiment_id", "name"])
    submitted = session.scalars(unique.returning(Job)).one_or_none()
    if submitted is None:
        raise JobNameTaken(f"the experiment has a job named {row['name']!r} already; choose another name or experiment")
    payload = {"state": submitted.state, "reason_code": reason_code, "reason": reason}
    events.append(session, submitted, "submitted", actor=actor, payload=payload)
    events.wake_scheduler(session, str(job_id))
    return submitted


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
        job.reason_code, job.reason = ReasonCode.STOPPING, {"actor": actor}
        session.flush()
        events.append(session, job, "cancel_requested", actor=actor, payload={})
        return job
    placed = session.scalars(select(Attempt).where(Attempt.job_id == job.id, Attempt.state == AttemptState.PLACED))
    for attempt in placed:
        # The job's lock keeps the worker from accepting in between.
        payload = {"outcome": Outcome.STOPPED, "message": f"cancelled by {actor}"}
        returned = move_attempt(
            session, attempt.id, AttemptEvent.RETURNED, actor=actor, payload=payload,
            outcome=Outcome.STOPPED, message=payload["message"],
        )  # fmt: skip
        assert returned is not None, "a placed attempt of a locked job stays placed"
        free_slots(session, returned)
    reason = {"actor": actor}
    move_job(
        session,
        job,
        JobEvent.CANCELLED,
        actor=actor,
        payload={"reason_code": ReasonCode.CANCELLED, "reason": reason},
        reason_code=ReasonCode.CANCELLED,
        reason=reason,
        cancel_requested_at=func.clock_timestamp(),
    )
    settle_dependants(session, job)
    return job
