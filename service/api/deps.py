"""What handlers ask for, as annotated aliases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
from fastapi import Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from barlow_lab.foreign_text import shown
from service.api.problems import Problem
from service.database.ids import read_uuid
from service.database.tables import Experiment, Job
from service.settings import Settings

# Requests that use the database at once. A request leaves its thread between its parts and keeps its connection: were
# there more of them than connections (database/engine.py; some are left to streams and figures), those that wait for a
# connection could take every thread from those that have one.
TURNS = 12
TURN_SECONDS = 20.0

OPENINGS = 3
"""Turns that streams take to begin: hundreds that begin at once leave the others to those who look."""

PAGES = 2
"""Pages of comparisons that are made at once: each takes a second of a core and more, and some tens of megabytes."""


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _sessions(request: Request) -> sessionmaker[Session]:
    sessions: sessionmaker[Session] = request.app.state.sessions
    return sessions


SettingsDep = Annotated[Settings, Depends(_settings)]
SessionsDep = Annotated[sessionmaker[Session], Depends(_sessions)]


@asynccontextmanager
async def take_turn(request: Request) -> AsyncIterator[None]:
    """One of the TURNS, given back at the end.

    Raises:
        Problem: 503; none came free in time.
    """
    turns: asyncio.Semaphore = request.app.state.turns
    try:
        await asyncio.wait_for(turns.acquire(), TURN_SECONDS)
    except TimeoutError:
        raise Problem("unavailable", "too many requests wait for the run database; try again in a moment") from None
    try:
        yield
    finally:
        turns.release()


@asynccontextmanager
async def open_session(request: Request, sessions: sessionmaker[Session]) -> AsyncIterator[Session]:
    """A session within a turn, committed at the end.

    Raises:
        Problem: 503; no turn came free in time.
    """
    async with take_turn(request):
        session = sessions()
        try:
            yield session
            await run_in_threadpool(session.commit)
        finally:  # on a connection that broke meanwhile, closing fails; the turn is given back all the same
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(session.close)


async def _session(request: Request, sessions: SessionsDep) -> AsyncIterator[Session]:
    async with open_session(request, sessions) as session:
        yield session


# Scope `function`: committed and given back before the first byte of the answer leaves.
SessionDep = Annotated[Session, Depends(_session, scope="function")]
"""A session of this request; the one place that commits is its end. An exception rolls back."""


async def _page_turn(request: Request) -> AsyncIterator[None]:
    pages: asyncio.Semaphore = request.app.state.pages
    try:
        await asyncio.wait_for(pages.acquire(), TURN_SECONDS)
    except TimeoutError:
        said = f"{PAGES} pages are being made; ask for this one again in a moment"
        raise Problem("too-many-requests", said, headers={"Retry-After": "10"}) from None
    try:
        yield
    finally:
        pages.release()


PageTurnDep = Annotated[None, Depends(_page_turn, scope="function")]
"""One of the turns at making a page; asked for before a session, which those who wait have none of."""


def client_address(request: Request) -> str:
    """Where a request came from, as a text to be written down: behind a trusted proxy it is what that has said."""
    return "nowhere" if request.client is None else shown(request.client.host)[:100]


def find_job(session: Session, text: str) -> Job:
    """The job with this id.

    Raises:
        Problem: 404.
    """
    job_id = read_uuid(text)
    job = session.get(Job, job_id) if job_id else None
    if job is None:
        raise Problem("not-found", f"there is no job {text!r}")
    return job


def find_experiment(session: Session, text: str) -> Experiment:
    """The experiment with this id or name.

    Raises:
        Problem: 404.
    """
    experiment_id = read_uuid(text)
    found = session.get(Experiment, experiment_id) if experiment_id else None
    found = found or session.scalar(select(Experiment).where(Experiment.name == text))
    if found is None:
        raise Problem("not-found", f"there is no experiment {text!r}")
    return found


def _job(session: SessionDep, job_id: Annotated[str, Path(description="Id of a job")]) -> Job:
    return find_job(session, job_id)


def _experiment(
    session: SessionDep, experiment_id: Annotated[str, Path(description="Id or name of an experiment")]
) -> Experiment:
    return find_experiment(session, experiment_id)


JobDep = Annotated[Job, Depends(_job, scope="function")]
"""The job that the path names; 404 when there is none."""

ExperimentDep = Annotated[Experiment, Depends(_experiment, scope="function")]
"""The experiment that the path names; 404 when there is none."""
