"""A worker that is killed, frozen or told to go, with and without its ranks."""

from __future__ import annotations

import signal
import time

import pytest
from fault_stack import LEASE, FaultStack, long_pretrain, middling_pretrain, pretrain
from faults import await_other, frozen, gone, kill, kill_part
from oracle import Oracle
from running_stack import wait_until


@pytest.mark.representative
def test_a_killed_worker_takes_its_ranks_with_it(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(2), "worker-killed")
    stack.wait_for_step(job, 30)
    ranks = stack.ranks(job)
    kill_part(stack, "worker")
    wait_until(lambda: all(map(gone, ranks)), 10)
    assert oracle.check(job, outcomes=["lost", "ok"]).restarts == 0


def test_worker_and_ranks_are_killed_together(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(2), "host-killed")
    stack.wait_for_step(job, 30)
    worker = stack.part("worker")
    assert kill([*stack.ranks(job), worker]) == 3
    await_other(stack, "worker", worker)
    assert oracle.check(job, outcomes=["lost", "ok"]).restarts == 0


def test_a_worker_frozen_for_less_than_the_lease_changes_nothing(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(middling_pretrain(), "worker-paused")
    stack.wait_for_step(job, 20)
    with frozen([stack.part("worker")]):
        time.sleep(0.4 * LEASE)
    oracle.check(job, outcomes=["ok"])


def test_a_worker_frozen_for_longer_than_the_lease_leaves_no_trainer(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(long_pretrain(2), "worker-frozen")
    stack.wait_for_step(job, 20)
    ranks = stack.ranks(job)
    with frozen([stack.part("worker")]):
        # The ranks end themselves, and only then the lease runs out.
        wait_until(lambda: all(map(gone, ranks)), 2 * LEASE)
        wait_until(lambda: stack.outcomes(job) == ["lost"], 2 * LEASE)
    assert oracle.check(job, outcomes=["lost", "ok"]).restarts == 0


def test_a_whole_host_frozen_for_longer_than_the_lease(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(long_pretrain(2), "host-frozen")
    stack.wait_for_step(job, 20)
    with frozen([stack.part("worker"), *stack.ranks(job)]):
        wait_until(lambda: stack.outcomes(job) == ["lost"], 3 * LEASE)
        time.sleep(2)
    assert oracle.check(job, outcomes=["lost", "ok"]).restarts == 0


def test_a_worker_killed_after_the_last_word_of_its_trainer(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(), "killed-at-the-end")
    stack.wait_for_step(job, 80)
    worker = stack.part("worker")
    with frozen([worker]):  # it does not hear the end
        wait_until((stack.folder(job, 1) / "outcome.json").exists, LEASE)
        kill([worker])
    await_other(stack, "worker", worker)
    oracle.check(job, outcomes=["ok"])


def test_a_worker_told_to_go_drains(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(middling_pretrain(), "drained")
    stack.wait_for_step(job, 20)
    kill_part(stack, "worker", signal.SIGTERM)
    assert oracle.check(job, outcomes=["drained", "ok"]).restarts == 0
    # It wrote a checkpoint before it went: nothing is done twice.
    (left,) = [line.step for line in stack.lines(job, 1) if line.kind == "stopped"]
    assert stack.wait_for_line(job, "started", attempt=2).step == left
