"""A real API process for the client and the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from service.client.api import Client
from service.database.engine import make_engine, session_factory
from service.settings import Settings


@pytest.fixture(autouse=True)
def config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config folder of the test's own, and no token in the environment."""
    home = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.delenv("BARLOW_TOKEN", raising=False)
    return home


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
