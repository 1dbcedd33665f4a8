"""Ranks that are killed or frozen: the job goes on from its last checkpoint, or simply goes on."""

from __future__ import annotations

import time

import pytest
from fault_stack import LEASE, FaultStack, middling_pretrain, pretrain
from faults import frozen, kill
from oracle import Oracle


def test_the_only_rank_is_killed(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(), "one-rank-killed")
    stack.wait_for_step(job, 30)
    assert kill(stack.ranks(job)) == 1
    oracle.check(job, outcomes=["crashed", "ok"])


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.representative), 1])
def test_one_of_two_ranks_is_killed(stack: FaultStack, oracle: Oracle, victim: int) -> None:
    job = stack.submit(pretrain(2), f"rank-{victim}-killed")
    stack.wait_for_step(job, 30)
    assert kill([stack.ranks(job)[victim]]) == 1
    oracle.check(job, outcomes=["crashed", "ok"])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_frozen_for_longer_than_the_lease_goes_on(stack: FaultStack, oracle: Oracle, victim: int) -> None:
    job = stack.submit(pretrain(2), f"rank-{victim}-frozen")
    stack.wait_for_step(job, 20)
    with frozen([stack.ranks(job)[victim]]):
        time.sleep(1.3 * LEASE)
    oracle.check(job, outcomes=["ok"])


def test_ranks_killed_before_the_first_checkpoint_and_at_every_attempt(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(middling_pretrain(), "killed-three-times")
    for attempt, step in ((1, 1), (2, 60), (3, 130)):
        stack.wait_for_step(job, step, attempt)
        assert kill(stack.ranks(job)) == 2
    oracle.check(job, outcomes=["crashed", "crashed", "crashed", "ok"])
