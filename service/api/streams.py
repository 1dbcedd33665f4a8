"""Server-sent events that follow a job: what is sent of its events and of its log, and the answer that sends it."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import Receive, Scope, Send

from service.api import problems
from service.api.feeds import JobStatus, Piece, Position, Record
from service.api.hub import Hub, Key, Seat
from service.api.logs import Log, open_log
from service.api.schemas import EventView
from service.callers import Caller
from service.database.tables import Event
from service.settings import Settings

BATCH = 500
"""Events that are read at once."""
LOG_PIECE = 64 * 1024
"""Bytes of a log that are read at once."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Stream(EventSourceResponse):
    """Sends a record from a position on, until the job has ended (then an event `end` with its state), or, without
    `follow`, until there is no more. Where the caller's token counts no more it ends with an `end` that says so."""

    def __init__(
        self, request: Request, caller: Caller, key: Key, record: Record, position: Position, *, follow: bool
    ) -> None:
        super().__init__(self._messages(), headers=HEADERS)
        self._request = request
        self._hub: Hub = request.app.state.hub
        self._caller, self._key, self._record = caller, key, record
        self._position, self._follow = position, follow
        self._seat: Seat | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; 429 where there may be no more streams."""
        try:
            # Taken as late as this, a seat is given back however the answer ends.
            with self._hub.seat(self._caller, self._key, self._record) as self._seat:
                await super().__call__(scope, receive, send)
        except problems.Problem as refused:
            await problems.answer(self._request, refused)(scope, receive, send)

    async def _messages(self) -> AsyncIterator[bytes]:
        seat, position = self._seat, self._position
        assert seat is not None, "it is taken before anything is sent"
        # The first bytes go out at once, so that the client knows that it is connected.
        yield format_sse_event(comment="follows", retry=2000)
        pieces: AsyncIterator[Piece | None] = self._hub.follow(seat, position)
        if not self._follow:
            pieces = self._hub.read(seat, self._key[0], position)
        async for piece in pieces:
            if piece is None:
                yield KEEPALIVE_COMMENT
            else:
                position = piece.end
                yield piece.data
        said = {"state": None if seat.ended is None else seat.ended.value}
        if seat.refused is not None:
            said = {"state": None, "reason": "unauthorized", "detail": seat.refused}
        yield format_sse_event(event="end", data_str=json.dumps(said), id=str(position))


def events_after(
    session: Session, job_id: uuid.UUID, seq: int, limit: int, until: int | None = None
) -> Sequence[Event]:
    """Events of a job with a larger number, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > seq)
    if until is not None:
        query = query.where(Event.seq <= until)
    return session.scalars(query.order_by(Event.seq).limit(limit)).all()


class EventRecord:
    """The events of a job; a position is the number of the last event before it."""

    def __init__(self, sessions: sessionmaker[Session], job_id: uuid.UUID) -> None:
        self._sessions = sessions
        self._job_id = job_id

    def newest(self, look: JobStatus) -> Position:
        """The place before the last BATCH of them."""
        return max(0, look.events - BATCH)

    def read(self, start: Position, until: Position | None, ended: bool) -> Piece | None:
        """The next BATCH of them."""
        with self._sessions() as session:
            rows = events_after(session, self._job_id, start, BATCH, until)
        views = [EventView.model_validate(row, from_attributes=True) for row in rows]
        data = b"".join(
            format_sse_event(event=view.kind, id=str(view.seq), data_str=view.model_dump_json()) for view in views
        )
        return Piece(start, views[-1].seq, data) if views else None

    def may_have_grown(self, look: JobStatus, end: Position) -> bool:
        """The job's row counts them."""
        return look.events > end


class LogRecord:
    """The log of a job, or of one attempt; a position is a byte of it."""

    def __init__(self, settings: Settings, job_id: uuid.UUID, attempt: int | None) -> None:
        self._settings = settings
        self._job_id = job_id
        self._attempt = attempt

    def newest(self, look: JobStatus) -> Position:
        """The place of the last line break before the last LOG_PIECE bytes, if there is one near."""
        log = self._open()
        start = max(0, log.size - LOG_PIECE)
        return start + log.read(start, LOG_PIECE).find(b"\n") + 1 if start else 0

    def read(self, start: Position, until: Position | None, ended: bool) -> Piece | None:
        """Whole lines; up to `until`, and of a job that has ended, what there is: a killed trainer's last line has no
        end."""
        log = self._open()
        room = LOG_PIECE if until is None else min(LOG_PIECE, until - start)
        found = log.lines(start, room)
        if not found and (ended or until is not None):
            found = log.read(start, room)
        if not found:
            return None
        end = start + len(found)
        text = found.decode("utf-8", errors="replace").removesuffix("\n")
        return Piece(start, end, format_sse_event(event="log", id=str(end), data_str=text))

    def may_have_grown(self, look: JobStatus, end: Position) -> bool:
        """Only the files know."""
        return True

    def _open(self) -> Log:
        return open_log(self._settings, self._job_id, self._attempt)
