"""Both ways from a submit to its start, each without the other: the message, and the question to the database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from fault_stack import FaultStack, knn, settings
from faults import away
from oracle import Oracle, Undisturbed

BY_MESSAGE_SECONDS = 2.0
BY_POLL_SECONDS = 20.0


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    """A stack whose worker asks the database once an hour, in which time it does not give a job back."""
    stack = FaultStack(tmp_path_factory.mktemp("wake") / "lab", settings(POLL=3600, LEASE=7200, TICK=2.0))
    try:
        stack.start()
        yield stack
    finally:
        stack.end()


@pytest.fixture(scope="module")
def judge(faulty: FaultStack, undisturbed: Undisturbed) -> Oracle:
    return Oracle(faulty, undisturbed)


def test_a_message_starts_a_job_within_two_seconds(stack: FaultStack, oracle: Oracle) -> None:
    for number in range(3):
        time.sleep(3)  # idle
        job = stack.submit(knn(), f"by-message-{number}")
        answered = datetime.now(UTC)
        oracle.check(job, outcomes=["ok"])
        (accepted,) = [event.at for event in stack.history(job) if event.kind == "attempt_accepted"]
        assert (accepted - answered).total_seconds() < BY_MESSAGE_SECONDS


def test_without_redis_the_poll_starts_it_within_twenty_seconds(stack: FaultStack, oracle: Oracle) -> None:
    """With the times that a user has."""
    assert stack.stop() == 0
    stack.settings = settings(POLL=15.0, LEASE=60.0, TICK=2.0)
    stack.start()
    with away(stack, "redis"):
        job = stack.submit(knn(), "by-poll")
        stack.wait_for(job, "running", "succeeded", seconds=BY_POLL_SECONDS)
    oracle.check(job, outcomes=["ok"])
