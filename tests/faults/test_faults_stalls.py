"""A rank that is alive but does nothing, in every phase: ended, its peers' stacks in the log, run again once."""

from __future__ import annotations

import time

import pytest
from fault_stack import FaultStack, knn, pretrain
from faults import frozen
from oracle import Oracle

STALL = 4


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("loading", {"kind": "progress", "phase": "loading data"}),
        pytest.param("training", {"kind": "metrics", "step": 30}, marks=pytest.mark.representative),
        ("at-the-end", {"kind": "metrics", "step": 96}),
    ],
)
def test_a_pretraining_stalls(stack: FaultStack, oracle: Oracle, name: str, moment: dict[str, object]) -> None:
    job = stack.submit(pretrain(stall_seconds=STALL), f"stalls-{name}")
    stack.wait_for_line(job, **moment)  # type: ignore[arg-type]
    with frozen(stack.ranks(job)):
        stack.wait(lambda: stack.outcomes(job)[0] == "stalled", "the first attempt is ended", 60)
    assert oracle.check(job, outcomes=["stalled", "ok"]).restarts == 1


def test_the_stacks_of_the_peers_are_in_the_log(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(2, stall_seconds=STALL), "one-of-two-stalls")
    stack.wait_for_step(job, 30)
    with frozen(stack.ranks(job)[1:]):
        stack.wait(lambda: stack.outcomes(job)[0] == "stalled", "the first attempt is ended", 60)
    oracle.check(job, outcomes=["stalled", "ok"])
    log = (stack.folder(job, 1) / "trainer.log").read_text()
    assert "[0] Current thread" in log or "[0] Thread 0x" in log
    assert "in pretrain" in log, "whichever collective of the loop it waits in"


def test_an_evaluation_stalls(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(knn(stall_seconds=STALL), "evaluation-stalls")
    stack.wait_for_line(job, "progress")
    with frozen(stack.ranks(job)):
        stack.wait(lambda: stack.outcomes(job)[0] == "stalled", "the first attempt is ended", 60)
    oracle.check(job, outcomes=["stalled", "ok"])


def test_a_second_stall_fails_the_job(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(stall_seconds=STALL), "stalls-twice")
    for attempt, step in ((1, 20), (2, 40)):
        stack.wait_for_step(job, step, attempt)
        with frozen(stack.ranks(job)):
            stack.wait(lambda n=attempt: stack.outcomes(job)[n - 1] == "stalled", "the attempt is ended", 60)
        time.sleep(0.1)
    failed = oracle.check(job, "failed", outcomes=["stalled", "stalled"])
    assert failed.error is not None
    assert failed.error["class"] == "stalled"
