"""Scheduler and API killed and frozen: what was accepted goes on, and somebody takes over."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from fault_stack import LEASE, FaultStack, knn, long_pretrain, pretrain
from faults import await_other, freeze_part, frozen, kill_part
from oracle import Oracle
from running_stack import wait_until
from sqlalchemy import select

from service.database.tables import Job, SchedulerSeen

TAKE_OVER_SECONDS = 15.0


@pytest.mark.representative
def test_the_scheduler_is_killed_again_and_again(stack: FaultStack, oracle: Oracle) -> None:
    """At any statement of a tick: just after a submit there is something to do."""
    moments = random.Random(1)
    jobs = []
    for number in range(3):
        jobs.append(stack.submit(knn(), f"placed-{number}"))
        time.sleep(moments.uniform(0.0, 0.1))
        kill_part(stack, "scheduler")
    for job in jobs:
        oracle.check(job, outcomes=["ok"])


def test_a_frozen_scheduler_is_replaced_by_a_second_one(stack: FaultStack, oracle: Oracle) -> None:
    running = stack.submit(pretrain(), "has-started")
    stack.wait_for_step(running, 10)
    first = stack.part("scheduler")
    with second_scheduler(first):
        seen = stack.read(lambda session: session.scalars(select(SchedulerSeen.instance)).one())
        with frozen([first]):
            since = time.monotonic()
            waiting = stack.submit(knn(), "submitted-meanwhile")
            stack.wait(
                lambda: stack.read(lambda session: session.scalars(select(SchedulerSeen.instance)).one()) != seen,
                "the second scheduler ticks",
                TAKE_OVER_SECONDS,
            )
            assert time.monotonic() - since < TAKE_OVER_SECONDS
            oracle.check(waiting, outcomes=["ok"])
        # It has lost the lock and with it its connection: it ends, and another one stands by in its place.
        await_other(stack, "scheduler", first)
        oracle.check(running, outcomes=["ok"])


def test_the_api_is_killed_during_submits(stack: FaultStack, oracle: Oracle) -> None:
    """Each key has its one job, however often it was sent."""
    submitted = [stack.submit(knn(), "api-killed", key="0" * 8 + f"-{time.time_ns()}")]
    key = f"again-{time.time_ns()}"
    url, body = f"{stack.endpoints['api']}/api/v1/jobs", {**knn(), "name": "sent-twice"}
    headers = {**stack.bearer, "Idempotency-Key": key}
    api = stack.part("api")
    with contextlib.suppress(httpx.HTTPError):
        subprocess.Popen(["sh", "-c", f"sleep 0.01; kill -9 {api.pid}"])
        httpx.post(url, params={"experiment": key}, json=body, headers=headers)
    await_other(stack, "api", api)
    stack.wait(stack.ready, "the API is back")
    again = httpx.post(url, params={"experiment": key}, json=body, headers=headers)
    assert again.status_code == 201, again.text
    submitted.append(again.json()["id"])
    made = stack.read(lambda session: session.scalars(select(Job.id).where(Job.name == "sent-twice")).all())
    assert [str(job) for job in made] == submitted[1:]
    for job in (submitted[0], made[0]):
        oracle.check(job, outcomes=["ok"])


def test_a_control_plane_frozen_for_longer_than_the_lease_reaps_nobody(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(long_pretrain(2), "nobody-looks")
    stack.wait_for_step(job, 10)
    freeze_part(stack, "api", 1)
    freeze_part(stack, "scheduler", 1.2 * LEASE)
    oracle.check(job, outcomes=["ok"])


def test_the_scheduler_is_killed_while_a_job_runs(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(2), "runs-alone")
    stack.wait_for_step(job, 10)
    kill_part(stack, "scheduler")
    kill_part(stack, "api")
    oracle.check(job, outcomes=["ok"])


@contextlib.contextmanager
def second_scheduler(first: psutil.Process) -> Iterator[subprocess.Popen[bytes]]:
    """Another scheduler like the first one; it stands by."""
    environment = first.environ()
    log = Path(environment["BARLOW_RUNS_DIR"]).parent / "logs" / "second-scheduler.log"
    with log.open("ab") as output:
        process = subprocess.Popen(first.cmdline(), env=environment, stderr=output)
    try:
        wait_until(lambda: "stands by" in log.read_text(), 60)
        yield process
    finally:
        process.kill()
        process.wait()
