"""A worker's supervisor at work in this process, and a lab with a node for what is recorded without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import Lab
from worker_host import Host, at_work

from service.settings import Settings


@pytest.fixture
def lab(database: Settings) -> Iterator[Lab]:
    """At the end what must always hold is checked."""
    lab = Lab(database)
    lab.node()
    yield lab
    lab.check()
    lab.engine.dispose()


@pytest.fixture
def host(database: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A node with two CPU slots; at the end it is drained, and what must always hold is checked."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield from at_work(Host(database))


@pytest.fixture
def patient_host(database: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The same with the heartbeat half a minute away."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield from at_work(Host(database, heartbeat_seconds=30.0, lease_seconds=90.0))
