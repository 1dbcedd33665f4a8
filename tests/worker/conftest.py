"""A worker's supervisor at work in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from worker_host import Host

from service.settings import Settings


@pytest.fixture
def host(database: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A node with two CPU slots; at the end it is drained, and what must always hold is checked."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    host = Host(database)
    host.node.start()
    yield host
    host.node.drain()
    host.check()
    host.engine.dispose()
