"""What a job has warned of, read from its history."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database.tables import Event

MOST = 1000
"""Different warnings that are looked at: images that cannot be read are named one by one."""


@dataclass(frozen=True, slots=True)
class Warned:
    """One message of a job, however often it was said."""

    message: str
    times: int
    at: datetime
    """When it was last said."""


def of_job(session: Session, job_id: uuid.UUID) -> Iterator[Warned]:
    """The job's warnings, the one said last first: up to MOST different ones."""
    message = Event.payload["message"].astext
    said = (
        select(message, func.count(), func.max(Event.at))
        .where(Event.job_id == job_id, Event.kind == "warning", message.is_not(None))
        .group_by(message)
        .order_by(func.max(Event.seq).desc())
        .limit(MOST)
    )
    return (Warned(*row) for row in session.execute(said))
