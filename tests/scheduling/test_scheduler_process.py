"""The scheduler as a process: one at a time, it dies with its connection, and it gives workers time after a start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from lab import Lab
from sqlalchemy import text

from service.ledger import events
from service.ledger.states import JobState
from service.local.servers import Redis
from service.scheduling.__main__ import _wait
from service.settings import Settings


class Scheduler:
    """`python -m service.scheduling`, with its log."""

    def __init__(self, settings: Settings, redis: Redis, **changed: str) -> None:
        environment = {
            **os.environ,
            "BARLOW_DATABASE_URL": settings.database_url.get_secret_value(),
            "BARLOW_REDIS_URL": redis.url,
            "BARLOW_TICK_SECONDS": "0.5",
            **changed,
        }
        command = [sys.executable, "-m", "service.scheduling"]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.heard = threading.Condition()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                with self.heard:
                    self.lines.append(line)
                    self.heard.notify_all()

    def wait_for(self, words: str) -> None:
        with self.heard:
            said = self.heard.wait_for(lambda: any(words in line for line in self.lines), timeout=60)
        assert said, f"{words!r} is not in the log: {self.lines}"

    def wait(self) -> int:
        code = self.process.wait(60)
        self.reader.join(60)
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


@pytest.fixture
def start(database: Settings, redis: Redis) -> Iterator[Callable[..., Scheduler]]:
    """Starts schedulers on the test's database; none outlives the test."""
    started: list[Scheduler] = []

    def start(**changed: str) -> Scheduler:
        started.append(Scheduler(database, redis, **changed))
        return started[-1]

    yield start
    for scheduler in started:
        scheduler.end()


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.05)


def test_one_schedules_and_the_other_takes_over_when_it_is_killed(lab: Lab, start: Callable[..., Scheduler]) -> None:
    first = start()
    first.wait_for("schedules now")
    second = start()
    second.wait_for("stands by")
    lab.node(slots=1)
    job_id = lab.submit()
    until(lambda: lab.job(job_id).reason_code == "placed")
    first.wait_for(f"job {job_id}: attempt 1 placed on gpu-1")
    assert not any("schedules now" in line for line in second.lines)
    first.process.kill()
    second.wait_for("schedules now")
    lab.node("gpu-2", slots=1)
    other = lab.submit()
    until(lambda: lab.job(other).reason_code == "placed")
    second.process.send_signal(signal.SIGTERM)
    assert second.wait() == 0
    assert len(second.lines) == 4, second.lines  # a line per change, none per tick


def test_a_frozen_scheduler_is_replaced_and_ends_when_it_thaws(lab: Lab, start: Callable[..., Scheduler]) -> None:
    first = start()
    first.wait_for("schedules now")
    second = start()
    second.wait_for("stands by")
    first.process.send_signal(signal.SIGSTOP)
    # The server ends the idle session of the frozen one after 10 s, and with it the lock.
    second.wait_for("schedules now")
    lab.node(slots=1)
    job_id = lab.submit()
    until(lambda: lab.job(job_id).reason_code == "placed")
    history = lab.kinds(job_id)
    first.process.send_signal(signal.SIGCONT)
    assert first.wait() == 1
    assert "the database connection, and with it the lock, is lost" in first.lines[-1]
    assert lab.kinds(job_id) == history
    assert not any(str(job_id) in line for line in first.lines)


def test_a_scheduler_that_stands_by_ends_cleanly_too(start: Callable[..., Scheduler]) -> None:
    first = start()
    first.wait_for("schedules now")
    second = start()
    second.wait_for("stands by")
    second.process.send_signal(signal.SIGINT)
    assert second.wait() == 0


@pytest.mark.parametrize("into", [0.0, 0.05, 0.3])
def test_a_scheduler_that_loses_its_connection_ends_with_a_failure(
    lab: Lab, start: Callable[..., Scheduler], into: float
) -> None:
    """In its first tick, and while it waits for the next one."""
    scheduler = start()
    scheduler.wait_for("schedules now")
    time.sleep(into)
    with lab.engine.begin() as connection:
        holder = text(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database d ON d.oid = database "
            "WHERE locktype = 'advisory' AND d.datname = current_database()"
        )
        assert connection.scalar(holder) is True
    assert scheduler.wait() == 1
    assert len(scheduler.lines) == 2, scheduler.lines  # it had the lock, it lost it; no traceback
    assert "the database connection, and with it the lock, is lost" in scheduler.lines[1]


def test_after_a_start_nothing_is_reaped_for_a_full_lease(lab: Lab, start: Callable[..., Scheduler]) -> None:
    lab.node()
    job_id = lab.submit()
    lab.expire(lab.start(job_id))
    scheduler = start(BARLOW_LEASE_SECONDS="4", BARLOW_HEARTBEAT_SECONDS="1", BARLOW_POLL_SECONDS="1")
    scheduler.wait_for("schedules now")
    held = datetime.strptime(scheduler.lines[0][:23], "%Y-%m-%d %H:%M:%S,%f").astimezone()
    until(lambda: lab.job(job_id).state == JobState.QUEUED)
    assert (lab.events(job_id)[-1].at - held).total_seconds() > 3
    assert lab.job(job_id).restarts == 0


def test_what_is_announced_ends_the_wait(lab: Lab) -> None:
    with lab.engine.connect() as connection:
        connection.execute(text(f"LISTEN {events.SCHEDULER_CHANNEL}"))
        connection.commit()
        lab.submit()
        started = time.monotonic()
        _wait(connection, 120)
        assert time.monotonic() - started < 60
