"""Redis stopped, frozen, flushed, restarted empty; messages doubled, lost and misaddressed."""

from __future__ import annotations

import uuid

import pytest
from fault_stack import FaultStack, knn, pretrain
from faults import away, empty_redis, flush_redis, freeze_part, frozen, send_message, stolen_messages, there, whole
from oracle import Oracle

BY_POLL_SECONDS = 20.0


@pytest.mark.representative
def test_redis_is_away_when_the_job_comes(stack: FaultStack, oracle: Oracle) -> None:
    with away(stack, "redis"):
        job = stack.submit(knn(), "unannounced")
        stack.wait_for(job, "running", "succeeded", seconds=BY_POLL_SECONDS)
    oracle.check(job, outcomes=["ok"])


def test_redis_is_frozen_when_the_job_comes(stack: FaultStack, oracle: Oracle) -> None:
    with frozen(whole(there(stack, "redis"))):
        job = stack.submit(knn(), "not-heard")
        stack.wait_for(job, "running", "succeeded", seconds=BY_POLL_SECONDS)
    oracle.check(job, outcomes=["ok"])


def test_redis_comes_and_goes_while_a_job_runs(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(2), "does-not-need-it")
    stack.wait_for_step(job, 10)
    freeze_part(stack, "redis", 1)
    empty_redis(stack)
    oracle.check(job, outcomes=["ok"])
    oracle.check(stack.submit(knn(), "after-it-came-back"), outcomes=["ok"])


@pytest.mark.parametrize("forget", [flush_redis, empty_redis])
def test_redis_forgets_everything(stack: FaultStack, oracle: Oracle, forget: object) -> None:
    assert callable(forget)
    forget(stack)
    for name in ("right-after", "a-little-later"):
        job = stack.submit(knn(), name)
        stack.wait_for(job, "running", "succeeded", seconds=BY_POLL_SECONDS)
        oracle.check(job, outcomes=["ok"])


def test_messages_doubled_for_nobody_and_to_nobody(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(), "told-often")
    stack.wait_for(job, "running")
    (attempt,) = stack.attempts(job)
    send_message(stack, attempt.id, times=20)
    send_message(stack, uuid.uuid4(), times=3)  # of an attempt that is not
    send_message(stack, attempt.id, node="gone", times=3)  # to a node that is not
    oracle.check(job, outcomes=["ok"])
    send_message(stack, attempt.id, times=3)  # of an attempt that has ended
    oracle.check(stack.submit(knn(), "after-all-of-them"), outcomes=["ok"])


def test_a_lost_message_costs_seconds(stack: FaultStack, oracle: Oracle) -> None:
    with stolen_messages(stack) as taken:
        job = stack.submit(knn(), "message-stolen")
        stack.wait_for(job, "running", "succeeded", seconds=BY_POLL_SECONDS)
    assert taken
    oracle.check(job, outcomes=["ok"])
