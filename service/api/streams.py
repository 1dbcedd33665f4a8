"""Server-sent events that follow a job. Between two reads a follower holds no session, no thread and no file."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.api.schemas import EventView
from service.database.away import is_away
from service.database.tables import Event, Job
from service.ledger.states import JobState

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
KEEPALIVE_SECONDS = 15.0
BATCH = 500

Position = int
Read = Callable[[Position], tuple[list[tuple[Position, bytes]], JobState | None]]
"""From a position: what is new, each with the position after it, and the job's state if it can change no more."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def stream(read: Read, position: Position, *, follow: bool) -> EventSourceResponse:
    """Send what `read` finds from `position` on, until the job has ended (then an event `end`) or, without `follow`,
    until there is no more."""
    return EventSourceResponse(_messages(read, position, follow=follow), headers=HEADERS)


async def _messages(read: Read, position: Position, *, follow: bool) -> AsyncIterator[bytes]:
    # The first bytes go out at once, so that the client knows that it is connected.
    yield format_sse_event(comment="follows", retry=2000)
    quiet = 0.0
    while True:
        try:
            found, ended = await run_in_threadpool(read, position)
            answered = True
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            log.warning("a stream waits for the run database: %s", error)
            found, ended, answered = [], None, False
        if found:
            for _, message in found:
                yield message
            position, quiet = found[-1][0], 0.0
            continue
        if ended is not None or (answered and not follow):
            state = None if ended is None else ended.value
            yield format_sse_event(event="end", data_str=json.dumps({"state": state}), id=str(position))
            return
        await asyncio.sleep(LOOK_SECONDS)
        quiet += LOOK_SECONDS
        if quiet >= KEEPALIVE_SECONDS:
            quiet = 0.0
            yield KEEPALIVE_COMMENT


def ended_state(session: Session, job_id: uuid.UUID) -> JobState | None:
    """The state of a job that has ended."""
    state = JobState(session.scalars(select(Job.state).where(Job.id == job_id)).one())
    return state if state.terminal else None


def events_after(session: Session, job_id: uuid.UUID, seq: int, limit: int) -> Sequence[Event]:
    """Events of a job with a larger number, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > seq).order_by(Event.seq).limit(limit)
    return session.scalars(query).all()


def event_reader(sessions: sessionmaker[Session], job_id: uuid.UUID) -> Read:
    """Reads the events of a job; a position is the number of the last event."""

    def read(position: Position) -> tuple[list[tuple[Position, bytes]], JobState | None]:
        with sessions() as session:
            ended = ended_state(session, job_id)  # before the events: what is written until the end is seen below
            rows = events_after(session, job_id, position, BATCH)
        views = [EventView.model_validate(row, from_attributes=True) for row in rows]
        messages = [
            (view.seq, format_sse_event(event=view.kind, id=str(view.seq), data_str=view.model_dump_json()))
            for view in views
        ]
        return messages, ended

    return read
