"""`barlow up` killed with -9, alone and with everything it started, and started again."""

from __future__ import annotations

import pytest
from fault_stack import FaultStack, knn, pretrain
from faults import kill
from oracle import Oracle


@pytest.mark.representative
def test_barlow_up_is_killed_and_started_again(stack: FaultStack, oracle: Oracle) -> None:
    running = stack.submit(pretrain(2), "up-killed")
    queued = stack.submit(knn(), "up-killed-before")
    stack.wait_for_step(running, 20)
    stack.kill()
    stack.start()
    assert oracle.check(running).restarts == 0
    assert len(stack.attempts(running)) == 2
    oracle.check(queued)


def test_the_whole_machine_dies(stack: FaultStack, oracle: Oracle) -> None:
    """Everything at one moment, the run database too."""
    running = stack.submit(pretrain(), "all-killed")
    queued = stack.submit(knn(), "all-killed-before")
    stack.wait_for_step(running, 20)
    everyone = stack.processes()
    stack.kill()
    kill([process for process in everyone if process.is_running()])
    stack.start()
    assert oracle.check(running).restarts == 0
    assert len(stack.attempts(running)) == 2
    oracle.check(queued)
