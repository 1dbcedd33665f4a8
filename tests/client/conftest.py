"""A real API process for the client and the command."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session

from service.client.api import Client
from service.database.engine import make_engine, session_factory
from service.local.servers import Postgres
from service.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))
from api_kit import run_server


@pytest.fixture(scope="module")
def served(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a migrated database that all tests of a module share."""
    name = f"served_{uuid.uuid4().hex}"
    postgres.create_database(name, template="migrated")
    yield Settings(database_url=SecretStr(postgres.url(name)), runs_dir=tmp_path_factory.mktemp("runs"))
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def server(served: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real API process over `served`."""
    with run_server(served, tmp_path_factory.mktemp("server")) as address:
        yield address


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
