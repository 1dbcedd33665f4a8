"""A full disk at a checkpoint, and a newest checkpoint that is not what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fault_stack import FaultStack, pretrain
from faults import fill_disk, flip_a_byte, frozen_at, kill, newest_checkpoint, truncate
from oracle import Oracle


def test_a_checkpoint_that_cannot_be_written(stack: FaultStack, oracle: Oracle) -> None:
    """The attempt fails with the reason, the checkpoint before is whole, and the next attempt goes on from it."""
    job = stack.submit(pretrain(2), "disk-full")
    stack.wait_for_line(job, "checkpoint", step=8)
    fill_disk(stack.ranks(job)[0])
    assert oracle.check(job, outcomes=["crashed", "ok"]).restarts == 1
    first = stack.attempts(job)[0]
    assert "File too large" in (first.message or "")
    written = [line.step for line in stack.lines(job, 1) if line.kind == "checkpoint"]
    assert stack.wait_for_line(job, "started", attempt=2).step == written[-1]


@pytest.mark.representative
def test_a_truncated_checkpoint_is_passed_over(stack: FaultStack, oracle: Oracle) -> None:
    _the_one_before_is_taken(stack, oracle, truncate)


def test_a_checkpoint_with_a_flipped_byte_is_passed_over(stack: FaultStack, oracle: Oracle) -> None:
    _the_one_before_is_taken(stack, oracle, flip_a_byte)


def _the_one_before_is_taken(stack: FaultStack, oracle: Oracle, damage: Callable[[Path], None]) -> None:
    job = stack.submit(pretrain(2), f"damaged-by-{damage.__name__.replace('_', '-')}")
    stack.wait_for_line(job, "started")
    ranks = stack.ranks(job)
    with frozen_at(ranks, lambda: any(line.kind == "checkpoint" and line.step >= 32 for line in stack.lines(job, 1))):
        steps = sorted(int(folder.name[5:]) for folder in newest_checkpoint(stack, job).parent.glob("step-*"))
        damage(newest_checkpoint(stack, job))
        kill(ranks)
    oracle.check(job, outcomes=["crashed", "ok"])
    assert stack.wait_for_line(job, "started", attempt=2).step == steps[-2]
    warnings = [event.payload for event in stack.history(job) if event.kind == "warning"]
    assert any(f"step-{steps[-1]:08d}" in str(warning) for warning in warnings), warnings
