"""The history of a job, append-only, and the two channels on which others hear of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from service.database.tables import Event, Job

SCHEDULER_CHANNEL = "barlow_jobs"
"""Something to place, or a slot came free."""
EVENT_CHANNEL = "barlow_events"
"""A job has a new event; the payload is the job's id."""


def append(session: Session, job: Job, kind: str, *, actor: str, payload: dict[str, Any]) -> int:
    """Add an event and announce it at the commit; returns its number, without gaps from 1.

    The number is taken from the job's row, whose lock then stands until the commit.
    """
    taken = (
        update(Job)
        .where(Job.id == job.id)
        .values(event_seq=Job.event_seq + 1)
        .returning(Job.event_seq)
        .execution_options(synchronize_session=False)
    )
    seq = session.scalars(taken).one()
    set_committed_value(job, "event_seq", seq)
    session.execute(insert(Event).values(job_id=job.id, seq=seq, kind=kind, actor=actor, payload=payload))
    session.execute(select(func.pg_notify(EVENT_CHANNEL, str(job.id))))
    return seq


def wake_scheduler(session: Session, why: str) -> None:
    """Have the scheduler look at once after the commit instead of at its next tick."""
    session.execute(select(func.pg_notify(SCHEDULER_CHANNEL, why)))
