"""The app over a real database, asked in process; and the same as a server process, for streams and large bodies."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
from api_kit import InProcess
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from service.api.app import create_app
from service.database.engine import make_engine, session_factory
from service.database.tables import Node, Slot
from service.ledger import attempts
from service.ledger import jobs as ledger
from service.settings import Settings


@pytest.fixture
def engine(database: Settings) -> Iterator[Engine]:
    made = make_engine(database)
    yield made
    made.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with session_factory(engine)() as opened:
        yield opened


@contextmanager
def _in_process(settings: Settings) -> Iterator[httpx.Client]:
    app = create_app(settings)
    with httpx.Client(transport=InProcess(app), base_url="http://barlow/api/v1") as client:
        yield client
    app.state.parts.close()
    app.state.engine.dispose()


@pytest.fixture
def in_process() -> Callable[[Settings], AbstractContextManager[httpx.Client]]:
    """Makes a client of an app with other settings."""
    return _in_process


@pytest.fixture
def api(database: Settings) -> Iterator[httpx.Client]:
    """A client of the app; paths are below /api/v1 unless they begin with http."""
    with _in_process(database) as client:
        yield client


@pytest.fixture
def add_node(session: Session) -> Callable[..., None]:
    """Register a node as a worker does; its rows are written directly, for the API only reads them."""

    def add(name: str, slots: int, *, memory_bytes: int = 8 * 10**9, data_sets: dict[str, Any] | None = None) -> None:
        session.add(
            Node(
                name=name, instance=uuid.uuid4(), versions={"barlow": "0.1.0"}, data_sets=data_sets or {},
                cores=2 * slots, memory_bytes=slots * memory_bytes,
            )
        )  # fmt: skip
        session.flush()
        for index in range(slots):
            device = f"{name}-{index}"
            session.add(Slot(node=name, index=index, kind="cpu", device_uuid=device, memory_bytes=memory_bytes))
        session.commit()

    return add


@pytest.fixture
def run_job(session: Session, add_node: Callable[..., None]) -> Callable[[str], uuid.UUID]:
    """Place a queued job on a node `host` of one slot and accept it, as scheduler and worker do."""

    def run(job_id: str) -> uuid.UUID:
        add_node("host", 1)
        job = ledger.lock_job(session, uuid.UUID(job_id))
        slot = session.scalars(select(Slot)).one()
        attempt = attempts.place(session, job, [slot], lease_seconds=60)
        instance = session.get_one(Node, "host").instance
        accepted = attempts.accept(session, attempt.id, node="host", instance=instance, lease_seconds=60)
        assert accepted is not None
        session.commit()
        return attempt.id

    return run
