"""Readiness over real servers that are stopped, frozen, not migrated or not there: true, in time, never a 500."""

from __future__ import annotations

import asyncio
import secrets
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from api_kit import PRETRAIN, run_server
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from service.api.readiness import Probe
from service.api.schemas import Check
from service.database import migrate
from service.database.engine import make_engine
from service.database.tables import SchedulerSeen
from service.local.servers import Postgres, Redis
from service.settings import Settings


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, Redis]]:
    """Servers of this module's own, to be stopped and frozen."""
    folder = tmp_path_factory.mktemp("parts")
    postgres = Postgres(folder, secrets.token_urlsafe(16), folder / "postgres.log", durable=False)
    redis = Redis(folder, secrets.token_urlsafe(16), folder / "redis.log")
    postgres.start()
    redis.start()
    yield postgres, redis
    redis.stop()
    postgres.stop()


@pytest.fixture
def settings(parts: tuple[Postgres, Redis], tmp_path: Path) -> Settings:
    """Of an empty database and a running broker."""
    postgres, redis = parts
    name = f"ready_{secrets.token_hex(6)}"
    postgres.create_database(name)
    return Settings(
        database_url=postgres.url(name), redis_url=redis.url, runs_dir=tmp_path / "runs", allowed_hosts="barlow"
    )


@pytest.fixture
def address(settings: Settings, tmp_path: Path) -> Iterator[str]:
    with run_server(settings, tmp_path) as address:
        yield address


def ready(address: str) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(f"{address}/readyz", timeout=8)
    assert answer.json()["ready"] == (answer.status_code == 200)
    checks: dict[str, Any] = answer.json()["checks"]
    assert list(checks) == ["database", "migrations", "scheduler", "broker"]
    return answer.status_code, checks


def failed(checks: dict[str, Any]) -> set[str]:
    return {name for name, check in checks.items() if not check["ok"]}


def scheduler_is_seen(settings: Settings) -> None:
    engine = make_engine(settings)
    row = insert(SchedulerSeen).values(id=1, instance=uuid.uuid4(), seen_at=func.now())
    with engine.begin() as connection:
        connection.execute(row.on_conflict_do_update(index_elements=["id"], set_={"seen_at": func.now()}))
    engine.dispose()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process and all below it, stopped and continued."""
    root = psutil.Process(pid)
    root.send_signal(signal.SIGSTOP)
    family = [root, *root.children(recursive=True)]
    try:
        for process in family:
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in family:
            process.send_signal(signal.SIGCONT)


def until(address: str, expected: set[str]) -> dict[str, Any]:
    """The checks, once exactly these fail."""
    deadline = time.monotonic() + 30
    while True:
        _, checks = ready(address)
        if failed(checks) == expected:
            return checks
        assert time.monotonic() < deadline, checks
        time.sleep(0.2)


def test_each_step_from_an_empty_database_to_a_service_that_works(settings: Settings, address: str) -> None:
    status, checks = ready(address)
    assert (status, failed(checks)) == (503, {"migrations", "scheduler"})
    assert checks["migrations"]["detail"].startswith("at nothing, needs ")
    migrate.upgrade(settings, "0001")
    status, checks = ready(address)
    assert (status, failed(checks)) == (503, {"migrations", "scheduler"})
    assert checks["migrations"]["detail"].startswith("at 0001, needs ")
    assert "python -m service.database upgrade" in checks["migrations"]["detail"]
    migrate.upgrade(settings)
    status, checks = ready(address)
    assert (status, failed(checks)) == (503, {"scheduler"})
    scheduler_is_seen(settings)
    status, checks = ready(address)
    assert (status, failed(checks)) == (200, set())
    assert {name: check["required"] for name, check in checks.items()} == {
        "database": True, "migrations": True, "scheduler": True, "broker": False,
    }  # fmt: skip


def test_without_redis_the_service_is_ready_says_so_and_takes_jobs(
    parts: tuple[Postgres, Redis], settings: Settings, address: str
) -> None:
    migrate.upgrade(settings)
    scheduler_is_seen(settings)
    assert ready(address)[0] == 200
    redis = parts[1]
    with frozen(redis.child.pid):
        checks = until(address, {"broker"})
        assert "BARLOW_POLL_SECONDS" in checks["broker"]["detail"]
        scheduler_is_seen(settings)
        assert ready(address)[0] == 200
        assert httpx.post(f"{address}/api/v1/jobs", json=PRETRAIN).status_code == 201
    until(address, set())
    port = redis.port
    redis.stop()
    checks = until(address, {"broker"})
    assert "ConnectionError" in checks["broker"]["detail"]
    assert redis.password not in str(checks)
    redis.start(port)
    scheduler_is_seen(settings)
    until(address, set())


def test_a_frozen_database_is_told_within_seconds_whoever_waits_for_it(
    parts: tuple[Postgres, Redis], settings: Settings, address: str
) -> None:
    migrate.upgrade(settings)
    scheduler_is_seen(settings)
    assert ready(address)[0] == 200
    answers: list[int] = []

    def list_jobs() -> None:
        answers.append(httpx.get(f"{address}/api/v1/jobs", timeout=60).status_code)

    waiting = [threading.Thread(target=list_jobs) for _ in range(60)]
    with frozen(parts[0].child.pid):
        for thread in waiting:  # more than there are threads and connections
            thread.start()
        for _ in range(3):
            status, checks = ready(address)
            assert (status, failed(checks)) == (503, {"database", "migrations", "scheduler"})
            assert checks["database"]["detail"] == "no answer within 2 s"
            assert httpx.get(f"{address}/healthz", timeout=8).status_code == 200
    for thread in waiting:
        thread.join(60)
    assert answers
    assert set(answers) <= {200, 503}
    scheduler_is_seen(settings)
    until(address, set())


def test_a_check_that_hangs_holds_one_thread_and_is_heard_when_it_is_done() -> None:
    release = threading.Event()
    asked = []

    def hangs() -> dict[str, Check]:
        asked.append(threading.current_thread())
        release.wait(30)
        return {"x": Check(ok=True, required=True, detail="done")}

    silent = {"x": Check(ok=False, required=True, detail="silent")}

    async def ask() -> list[str]:
        probe = Probe(hangs, silent, patience=0.05, kept=60.0)
        said = [(await probe.ask())["x"].detail for _ in range(3)]
        release.set()
        asked[0].join(30)
        return [*said, (await probe.ask())["x"].detail, (await probe.ask())["x"].detail]

    assert asyncio.run(ask()) == ["silent", "silent", "silent", "done", "done"]
    assert len(asked) == 1
