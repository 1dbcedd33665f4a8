"""MLflow down at the start, in the middle, for the whole run, and frozen: no step waits, and all arrives."""

from __future__ import annotations

import signal

import pytest
from fault_stack import FaultStack, long_pretrain, pretrain
from faults import away, frozen, kill, kill_part, there, whole
from oracle import Oracle


def test_killed_in_the_middle(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(pretrain(), "mlflow-killed")
    stack.wait_for_step(job, 20)
    kill_part(stack, "mlflow")
    oracle.check(job, outcomes=["ok"])


@pytest.mark.representative
def test_away_at_the_start(stack: FaultStack, oracle: Oracle) -> None:
    with away(stack, "mlflow"):
        job = stack.submit(pretrain(), "mlflow-late")
        stack.wait_for_step(job, 20)
    oracle.check(job, outcomes=["ok"])


def test_away_for_the_whole_run(stack: FaultStack, oracle: Oracle) -> None:
    with away(stack, "mlflow", signal.SIGKILL):
        job = stack.submit(pretrain(), "mlflow-never")
        assert stack.wait_for_end(job).state == "succeeded"
    oracle.check(job, outcomes=["ok"])


def test_frozen_for_the_whole_run(stack: FaultStack, oracle: Oracle) -> None:
    with frozen(whole(there(stack, "mlflow"))):
        job = stack.submit(pretrain(), "mlflow-frozen")
        assert stack.wait_for_end(job).state == "succeeded"
    oracle.check(job, outcomes=["ok"])


def test_away_while_the_job_crashes_and_goes_on(stack: FaultStack, oracle: Oracle) -> None:
    """Nothing of the steps that were taken twice gets there twice."""
    job = stack.submit(long_pretrain(), "mlflow-misses-a-crash")  # MLflow takes its time to go
    stack.wait_for_step(job, 20)
    with away(stack, "mlflow"):
        stack.wait_for_step(job, 42)
        assert kill(stack.ranks(job)) == 1
        stack.wait_for_step(job, 60, attempt=2)
    oracle.check(job, outcomes=["crashed", "ok"])
