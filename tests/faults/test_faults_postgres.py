"""The run database restarted, killed, frozen and away, shorter and longer than the lease."""

from __future__ import annotations

import signal
import time

import pytest
from fault_stack import LEASE, FaultStack, long_pretrain, middling_pretrain, pretrain
from faults import away, freeze_part, frozen, gone, kill_part, there, whole
from oracle import Oracle


@pytest.mark.representative
def test_the_database_is_restarted(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(2), "database-restarted")
    stack.wait_for_step(job, 20)
    kill_part(stack, "postgres", signal.SIGINT)
    assert oracle.check(job).restarts == 0  # how long it is away is up to the machine


def test_the_database_is_killed(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(middling_pretrain(), "database-killed")
    stack.wait_for_step(job, 20)
    kill_part(stack, "postgres", signal.SIGQUIT)  # at once, without a checkpoint: it recovers at its next start
    assert oracle.check(job).restarts == 0


def test_frozen_for_less_than_the_lease_changes_nothing(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(middling_pretrain(), "database-paused")
    stack.wait_for_step(job, 20)
    freeze_part(stack, "postgres", 0.25 * LEASE)
    oracle.check(job, outcomes=["ok"])


def test_frozen_for_longer_than_the_lease(stack: FaultStack, oracle: Oracle) -> None:
    """The trainer writes a checkpoint and goes before anybody else may start the job; it goes on, uncounted."""
    job = stack.submit(long_pretrain(2), "database-frozen")
    stack.wait_for_step(job, 20)
    ranks = stack.ranks(job)
    with frozen(whole(there(stack, "postgres"))):
        deadline = time.monotonic() + LEASE
        while not all(map(gone, ranks)):
            assert time.monotonic() < deadline, "the trainer outlives its lease"
            time.sleep(0.1)
        time.sleep(LEASE / 2)
    assert oracle.check(job, outcomes=["lost", "ok"]).restarts == 0
    (left,) = [line.step for line in stack.lines(job, 1) if line.kind == "stopped"]
    assert stack.wait_for_line(job, "started", attempt=2).step == left


def test_away_for_longer_than_the_lease(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(long_pretrain(2), "database-away")
    stack.wait_for_step(job, 20)
    with away(stack, "postgres", signal.SIGINT):
        time.sleep(1.5 * LEASE)
    assert oracle.check(job, outcomes=["lost", "ok"]).restarts == 0


def test_away_when_the_trainer_ends(stack: FaultStack, oracle: Oracle) -> None:
    """A trainer that got to its end within its lease is not run again."""
    job = stack.submit(pretrain(2), "ends-unheard")
    stack.wait_for_step(job, 92)
    with away(stack, "postgres", signal.SIGINT):
        time.sleep(1.5 * LEASE)
    oracle.check(job, outcomes=["ok"])
