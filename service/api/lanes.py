"""How submissions come in: one caller's in a lane of their own, read one at a time, then at the database.

Reading a body is work for the processor, of which Python does one piece at a time; so bodies are read one after
another, and whatever else is asked meanwhile waits for one of them and not for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from service.admission.errors import InvalidSpec
from service.admission.reading import ExperimentBody, JobBody, read_experiment, read_job
from service.api.auth import CallerDep
from service.api.bodies import parse_json, read_body
from service.api.deps import TURN_SECONDS, TURNS, SessionsDep, SettingsDep, open_session
from service.api.idempotency import IdempotencyKeyDep
from service.api.problems import Problem

AT_ONCE = 4
"""Submissions of one caller that are worked at."""
AT_ONCE_IN_ALL = TURNS * 2 // 3
"""Submissions of all callers; the turns at the database beside them are for those who look."""
WAITING = 250
"""Submissions of one caller that are there at once; each may hold a body in memory."""

_Body = TypeVar("_Body", JobBody, ExperimentBody)


class Lane:
    """The submissions of one caller."""

    def __init__(self) -> None:
        self.there = 0
        self.turns = asyncio.Semaphore(AT_ONCE)


class Lanes:
    """The lanes of all callers that have one now."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._turns = asyncio.Semaphore(AT_ONCE_IN_ALL)
        self._reading = asyncio.Semaphore(1)

    @contextmanager
    def enter(self, caller: str) -> Iterator[Lane]:
        """The lane of a caller, while a submission is in it.

        Raises:
            Problem: 429; it is full.
        """
        lane = self._lanes.setdefault(caller, Lane())
        if lane.there >= WAITING:
            said = f"{WAITING} submissions of {caller} wait already; send the next one when one of them is answered"
            raise Problem("too-many-requests", said, headers={"Connection": "close", "Retry-After": "2"})
        lane.there += 1
        try:
            yield lane
        finally:
            lane.there -= 1
            if not lane.there:
                del self._lanes[caller]

    @asynccontextmanager
    async def turn(self, lane: Lane) -> AsyncIterator[None]:
        """One of the lane's turns, and one of all lanes'.

        Raises:
            Problem: 429; none came free in time.
        """
        async with _in_time(lane.turns), _in_time(self._turns):
            yield

    async def read(self, read: Callable[[Any], _Body], raw: bytes) -> _Body:
        """What `read` makes of the JSON of a body, when those before it are read.

        Raises:
            Problem, InvalidSpec: as parse_json.
        """
        async with self._reading:
            return await run_in_threadpool(lambda: read(parse_json(raw)))


@asynccontextmanager
async def _in_time(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        await asyncio.wait_for(turns.acquire(), TURN_SECONDS)
    except TimeoutError:
        said = "too many submissions wait; send this one again in a moment"
        raise Problem("too-many-requests", said, headers={"Retry-After": "2"}) from None
    try:
        yield
    finally:
        turns.release()


def _lanes(request: Request) -> Lanes:
    lanes: Lanes = request.app.state.lanes
    return lanes


LanesDep = Annotated[Lanes, Depends(_lanes)]


async def _lane(lanes: LanesDep, caller: CallerDep) -> AsyncIterator[Lane]:
    with lanes.enter(caller.user) as lane:
        yield lane


# It is entered before the body is read and left when the job is made, so it counts the bodies in memory.
LaneDep = Annotated[Lane, Depends(_lane, scope="function")]
_Raw = Annotated[bytes, Depends(read_body)]


async def _job_body(lanes: LanesDep, lane: LaneDep, raw: _Raw) -> AsyncIterator[JobBody]:
    async with lanes.turn(lane):
        yield await lanes.read(read_job, raw)


async def _experiment_body(
    lanes: LanesDep, lane: LaneDep, raw: _Raw, settings: SettingsDep
) -> AsyncIterator[ExperimentBody]:
    async with lanes.turn(lane):
        yield await lanes.read(lambda body: read_experiment(body, settings.max_experiment_jobs), raw)


JobBodyDep = Annotated[JobBody, Depends(_job_body, scope="function")]
"""The job that a request submits, read without a session."""
ExperimentBodyDep = Annotated[ExperimentBody, Depends(_experiment_body, scope="function")]
"""The experiment that a request submits, read without a session."""


async def _job_session(
    request: Request, sessions: SessionsDep, body: JobBodyDep, key: IdempotencyKeyDep
) -> AsyncIterator[Session]:
    _refuse(request, body, key)
    async with open_session(request, sessions) as session:
        yield session


async def _experiment_session(
    request: Request, sessions: SessionsDep, body: ExperimentBodyDep, key: IdempotencyKeyDep
) -> AsyncIterator[Session]:
    _refuse(request, body, key)
    async with open_session(request, sessions) as session:
        yield session


JobSessionDep = Annotated[Session, Depends(_job_session, scope="function")]
"""A session, once the job's body has been read; see `deps.SessionDep`."""
ExperimentSessionDep = Annotated[Session, Depends(_experiment_session, scope="function")]
"""A session, once the experiment's body has been read."""


def _refuse(request: Request, body: JobBody | ExperimentBody, key: str | None) -> None:
    """Refuse a body with faults without a session, unless it names what could be looked up and a turn is free.

    One with a key may be the repeat of a request that was answered well by an earlier version, and is looked up always.

    Raises:
        InvalidSpec
    """
    turns: asyncio.Semaphore = request.app.state.turns
    if body.found and key is None and (not body.names_something or turns.locked()):
        raise InvalidSpec(body.found.faults, body.found.left_out)
