"""A real API process for the client and the command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from service.client.api import Client
from service.database.engine import make_engine, session_factory
from service.settings import Settings


@pytest.fixture
def session(served: Settings) -> Iterator[Session]:
    engine = make_engine(served)
    with session_factory(engine)() as opened:
        yield opened
    engine.dispose()


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as opened:
        yield opened
