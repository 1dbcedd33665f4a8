"""The lease of one attempt: what a renewal says, and what silence means."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab
from worker_host import Host

from service.database.tables import Attempt
from service.settings import Settings
from worker import clock
from worker.lease import Lease


@pytest.fixture
def host(database: Settings) -> Iterator[Host]:
    host = Host(database, heartbeat_seconds=0.1, lease_seconds=30.0)
    Lab.node(host, "host-1")
    yield host
    host.check()
    host.engine.dispose()


def _lease(host: Host, attempt: Attempt, folder: Path, **changed: Any) -> Lease:
    settings = host.settings.model_copy(update=changed)
    alive = folder / "alive"
    return Lease(host.sessions, settings, attempt.id, attempt.token, sent=clock.now(), alive=alive)


def _renewed(host: Host, condition: Callable[[], bool]) -> None:
    host.wait(condition)


def test_cancel_stands_before_pause_before_preemption_and_a_pause_is_withdrawn(host: Host, tmp_path: Path) -> None:
    job_id = host.submit(preemptible=True)
    lease = _lease(host, host.start(job_id), tmp_path)
    lease.start()
    try:
        assert lease.stop is None
        host.pause(job_id)
        _renewed(host, lambda: lease.stop == "pause")
        host.resume(job_id)
        _renewed(host, lambda: lease.stop is None)
        host.preempt(job_id)
        _renewed(host, lambda: lease.stop == "preempt")
        host.pause(job_id)
        _renewed(host, lambda: lease.stop == "pause")
        host.cancel(job_id)
        _renewed(host, lambda: lease.stop == "cancel")
        assert not lease.ghost
    finally:
        lease.end()


def test_what_the_ranks_do_is_told_once_and_a_ghost_is_told_that_it_is_one(host: Host, tmp_path: Path) -> None:
    job_id = host.submit()
    attempt = host.start(job_id)
    lease = _lease(host, attempt, tmp_path)
    lease.start()
    try:
        lease.running()
        _renewed(host, lambda: host.attempt(job_id).state == "running")
        lease.stopping("pause")
        lease.stopping("cancel")
        _renewed(host, lambda: host.attempt(job_id).state == "stopping")
        assert host.kinds(job_id).count("attempt_stopping") == 1
        assert not lease.ghost
        host.lose(attempt)
        lease.renew_now()
        _renewed(host, lambda: lease.ghost)
    finally:
        lease.end()


def test_a_lease_not_renewed_for_longer_than_ranks_wait_has_lapsed_for_ever(host: Host, tmp_path: Path) -> None:
    lease = _lease(host, host.start(host.submit()), tmp_path, heartbeat_seconds=3600.0, lease_seconds=2.0)
    lease.start()
    try:
        assert not lease.lapsed
        assert lease.left() > 0
        _renewed(host, lambda: lease.lapsed)
        assert lease.left() < 0, "the trainer is told to stop before its ranks end themselves"
        lease.renew_now()
        _renewed(host, lambda: lease.left() > 0)
        assert lease.lapsed
    finally:
        lease.end()
