"""One look for all who follow: a job's record is read once, and everybody who follows it is given what was read.

A `Feed` is one record of one job: its events, or its log. It keeps the newest messages, at most BACKLOG_BYTES of them,
and followers take from it what is new to them, each at its own pace: who is slower than that, or begins further back,
reads the older part for himself until he is there. Nothing is kept for a follower, so a slow one costs no memory.

The `Hub` looks at all jobs that are followed with one statement, every LOOK_SECONDS, and reads those records alone
that may have grown; every few looks it asks, also with one, which callers' tokens still count. It looks as long as
somebody follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.api.auth import Guard
from service.api.feeds import Feed, JobStatus, Piece, Position, Record
from service.api.problems import Problem
from service.callers import Caller
from service.database.away import is_away
from service.database.tables import Job
from service.ledger.states import JobState
from service.settings import Settings

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
ROUNDS_PER_CHECK = 4
"""Looks between two questions whether the callers' tokens still count: every two seconds."""
KEEPALIVE_SECONDS = 15.0
READS = 4
"""Records that are read at once, by all feeds and followers together; each takes a thread and maybe a connection."""

P = ParamSpec("P")
T = TypeVar("T")


Key = tuple[uuid.UUID, str]
"""A job, and which record of it."""


@dataclass(eq=False, slots=True)
class Seat:
    """One open stream: whose it is, what it follows, and why it has to end, if it has to."""

    caller: Caller
    feed: Feed
    refused: str | None = None
    ended: JobState | None = None
    """The state of the job, where it has ended and the stream has come to its end."""


class Hub:
    """All feeds and all open streams of a process. All but the reading happens on its event loop."""

    def __init__(self, sessions: sessionmaker[Session], guard: Guard, settings: Settings) -> None:
        self._sessions = sessions
        self._guard = guard
        self._settings = settings
        self._feeds: dict[Key, Feed] = {}
        self._seats: set[Seat] = set()
        self._reads = asyncio.Semaphore(READS)
        self._looking: asyncio.Task[None] | None = None
        self._new = asyncio.Event()

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._seats)

    @contextlib.contextmanager
    def seat(self, caller: Caller, key: Key, record: Record) -> Iterator[Seat]:
        """A place among the followers of a record, for one stream.

        Raises:
            Problem: 429; the token, or all together, have as many streams as there may be.
        """
        self._refuse_too_many(caller)
        if self._looking is None:
            self._new = asyncio.Event()
            self._looking = asyncio.create_task(self._look_on(), name="followers")
        if key not in self._feeds:
            self._feeds[key] = Feed(record)
            self._new.set()
        feed = self._feeds[key]
        seat = Seat(caller, feed)
        feed.followers += 1
        self._seats.add(seat)
        try:
            yield seat
        finally:
            self._seats.remove(seat)
            feed.followers -= 1
            if not feed.followers:
                del self._feeds[key]
                if feed.reading is not None:
                    feed.reading.cancel()
            if not self._seats:
                self._looking.cancel()
                self._looking = None

    async def follow(self, seat: Seat, position: Position) -> AsyncIterator[Piece | None]:
        """What comes from `position` on, until the job has ended; None after KEEPALIVE_SECONDS without anything. It
        ends early where `seat.refused` says why."""
        feed = seat.feed
        while seat.refused is None:
            if feed.failed is not None:
                raise feed.failed
            if feed.end is None or (position >= feed.end and feed.ended is None):
                if not await feed.change(KEEPALIVE_SECONDS):
                    yield None
                continue
            if position >= feed.end:
                seat.ended = feed.ended
                return
            piece = feed.after(position)
            if piece is None or piece.start != position:
                # Up to what is kept, or from amid a piece to its end: from there on all take the same pieces.
                until = feed.floor if piece is None else piece.end
                piece = await self._ask(feed.record.read, position, until, False)
            if piece is None:  # somebody has cut the record off
                await asyncio.sleep(LOOK_SECONDS)
                continue
            position = piece.end
            yield piece

    async def read(self, seat: Seat, job_id: uuid.UUID, position: Position) -> AsyncIterator[Piece]:
        """What there is from `position` on now, read for this stream alone."""
        look = (await self._ask(self._jobs, {job_id}))[job_id]
        ended = look.state if look.state.terminal else None
        while seat.refused is None:
            piece = await self._ask(seat.feed.record.read, position, None, ended is not None)
            if piece is None:
                seat.ended = ended
                return
            position = piece.end
            yield piece

    def _refuse_too_many(self, caller: Caller) -> None:
        settings = self._settings
        of_token = sum(1 for seat in self._seats if seat.caller.name == caller.name)
        if of_token >= settings.max_streams_per_token:
            many = f"{of_token:,} streams of the token {caller.name} are open"
            setting = "BARLOW_MAX_STREAMS_PER_TOKEN"
        elif self.streams >= settings.max_streams:
            many, setting = f"{self.streams:,} streams are open", "BARLOW_MAX_STREAMS"
        else:
            return
        said = f"{many}, as many as there may be ({setting} of the API); close one, or ask for pages"
        raise Problem("too-many-requests", said, headers={"Retry-After": "10"})

    async def _look_on(self) -> None:
        """Look at all that is followed, and at who follows, until nobody does any more."""
        for rounds in itertools.count():
            try:
                if rounds % ROUNDS_PER_CHECK == 0:
                    await self._check_callers()
                await self._look()
            except Exception as error:  # whatever it is, the streams wait for the next look
                if is_away(error):
                    log.warning("%d streams wait for the run database: %s", self.streams, error)
                else:
                    log.exception("a look at what is followed has failed")
            # The first follower of a record is not kept waiting for the next look.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._new.wait()
            self._new.clear()

    async def _look(self) -> None:
        looks = await run_in_threadpool(self._jobs, {job_id for job_id, _ in self._feeds})
        for (job_id, _), feed in list(self._feeds.items()):
            look = looks.get(job_id)
            if look is None or (feed.reading is not None and not feed.reading.done()):
                continue
            over = look.state.terminal and feed.ended is None
            if feed.end is None or over or feed.record.may_have_grown(look, feed.end):
                feed.reading = asyncio.create_task(self._catch_up(feed, look))

    def _jobs(self, ids: set[uuid.UUID]) -> dict[uuid.UUID, JobStatus]:
        with self._sessions() as session:
            rows = session.execute(select(Job.state, Job.id, Job.event_seq).where(Job.id.in_(ids)))
            return {job_id: JobStatus(events, JobState(state)) for state, job_id, events in rows}

    async def _catch_up(self, feed: Feed, look: JobStatus) -> None:
        """Read a record to its end. Its job's state is older, so of a job that has ended nothing comes after that."""
        ended = look.state if look.state.terminal else None
        try:
            if feed.end is None:
                feed.end = await self._ask(feed.record.newest, look)
                feed.changed()
            while (piece := await self._ask(feed.record.read, feed.end, None, ended is not None)) is not None:
                feed.take(piece)
            if ended is not None:
                feed.ended = ended
                feed.changed()
        except Exception as error:
            feed.failed = error
            feed.changed()

    async def _ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function that blocks answers, asked again while the run database is away."""
        while True:
            async with self._reads:
                try:
                    return await run_in_threadpool(function, *args, **kwargs)
                except SQLAlchemyError as error:
                    if not is_away(error):
                        raise
                    log.warning("a stream waits for the run database: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def _check_callers(self) -> None:
        names = {seat.caller.name for seat in self._seats}
        refusals = await run_in_threadpool(self._guard.lapsed, self._sessions, names)
        for seat in self._seats:
            if seat.caller.name in refusals:
                seat.refused = refusals[seat.caller.name]
                seat.feed.changed()
