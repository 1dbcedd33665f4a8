"""Cancel, pause, resume, preempt and retry in every state, whatever else is away; a drain is one of the worker's."""

from __future__ import annotations

import signal

import pytest
from fault_stack import LEASE, FaultStack, knn, middling_pretrain, pretrain
from faults import await_other, away, frozen, kill, kill_part
from oracle import Oracle


def test_a_job_is_cancelled_before_it_runs(stack: FaultStack, oracle: Oracle) -> None:
    """Queued behind another one, waiting for another one, and paused."""
    first = stack.submit(middling_pretrain(), "has-the-slots")
    queued, paused = stack.submit(pretrain(), "cancelled-queued"), stack.submit(pretrain(), "cancelled-paused")
    waiting = stack.submit(knn(first), "cancelled-waiting")
    assert stack.ask(lambda client: client.pause(paused)).state == "paused"
    for job in (queued, paused, waiting):
        assert stack.ask(lambda client, job=job: client.cancel(job)).state == "cancelled"
        oracle.check(job, "cancelled", outcomes=[])
    stack.wait_for_step(first, 5)
    stack.ask(lambda client: client.cancel(first))
    oracle.check(first, "cancelled", outcomes=["stopped"])


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_a_stop_just_after_the_start(stack: FaultStack, oracle: Oracle, verb: str) -> None:
    """The ranks import torch and hear nothing yet."""
    job = stack.submit(middling_pretrain(), f"{verb}-at-the-start")
    stack.wait_for(job, "running")
    stack.ask(lambda client: getattr(client, verb)(job))
    if verb == "pause":
        stack.wait_for(job, "paused")
        stack.ask(lambda client: client.resume(job))
        oracle.check(job, outcomes=["stopped", "ok"])
    else:
        oracle.check(job, "cancelled", outcomes=["stopped"])


@pytest.mark.representative
def test_a_paused_job_goes_on_where_it_was(stack: FaultStack, oracle: Oracle) -> None:
    """With a checkpoint after every step, so that the request comes while one is written; twice."""
    job = stack.submit(middling_pretrain(checkpoint={"every_steps": 1}), "paused")
    for attempt, step in ((1, 20), (2, 60)):
        stack.wait_for_step(job, step, attempt)
        stack.ask(lambda client: client.pause(job))
        stack.wait_for(job, "paused")
        (left,) = [line.step for line in stack.lines(job, attempt) if line.kind == "stopped"]
        assert stack.ranks(job) == []
        stack.ask(lambda client: client.resume(job))
        assert stack.wait_for_line(job, "started", attempt=attempt + 1).step == left
    assert oracle.check(job, outcomes=["stopped", "stopped", "ok"]).restarts == 0


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_stops_with_redis_away(stack: FaultStack, oracle: Oracle, verb: str) -> None:
    job = stack.submit(middling_pretrain(), f"{verb}-without-redis")
    stack.wait_for_step(job, 20)
    with away(stack, "redis"):
        stack.ask(lambda client: getattr(client, verb)(job))
        stack.wait_for(job, "cancelled" if verb == "cancel" else "paused")
        if verb == "pause":
            stack.ask(lambda client: client.resume(job))
            stack.wait_for(job, "running")
    if verb == "cancel":
        oracle.check(job, "cancelled", outcomes=["stopped"])
    else:
        oracle.check(job, outcomes=["stopped", "ok"])


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_stops_with_no_worker_running(stack: FaultStack, oracle: Oracle, verb: str) -> None:
    """Its lease runs out, and what was asked is done then."""
    job = stack.submit(middling_pretrain(), f"{verb}-without-worker")
    stack.wait_for_step(job, 20)
    with away(stack, "worker", signal.SIGKILL):
        stack.ask(lambda client: getattr(client, verb)(job))
        stack.wait_for(job, "cancelled" if verb == "cancel" else "paused", seconds=4 * LEASE)
    if verb == "cancel":
        oracle.check(job, "cancelled", outcomes=["lost"])
    else:
        stack.ask(lambda client: client.resume(job))
        oracle.check(job, outcomes=["lost", "ok"])


def test_a_frozen_rank_is_cancelled(stack: FaultStack, oracle: Oracle) -> None:
    """It hears neither the request nor TERM."""
    job = stack.submit(middling_pretrain(), "cancelled-frozen")
    stack.wait_for_step(job, 20)
    with frozen(stack.ranks(job)[:1]):
        stack.ask(lambda client: client.cancel(job))
        stack.wait_for(job, "cancelled")
    oracle.check(job, "cancelled", outcomes=["stopped"])


def test_the_worker_is_killed_while_it_stops_a_job(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(middling_pretrain(), "pause-and-kill")
    stack.wait_for_step(job, 20)
    worker = stack.part("worker")
    stack.ask(lambda client: client.pause(job))
    kill([worker])
    await_other(stack, "worker", worker)
    stack.wait_for(job, "paused")
    stack.ask(lambda client: client.resume(job))
    assert oracle.check(job).restarts == 0


def test_the_scheduler_and_the_api_are_killed_after_a_cancel(stack: FaultStack, oracle: Oracle) -> None:
    job = stack.submit(middling_pretrain(), "cancel-and-kill")
    stack.wait_for_step(job, 20)
    stack.ask(lambda client: client.cancel(job))
    kill_part(stack, "api")
    kill_part(stack, "scheduler")
    oracle.check(job, "cancelled", outcomes=["stopped"])


def test_a_job_makes_room_for_one_of_higher_priority(stack: FaultStack, oracle: Oracle) -> None:
    low = stack.submit(middling_pretrain(preemptible=True), "gives-way")
    stack.wait_for_step(low, 20)
    high = stack.submit(middling_pretrain(priority=50), "has-priority")
    oracle.check(high, outcomes=["ok"])
    assert oracle.check(low, outcomes=["stopped", "ok"]).restarts == 0


def test_a_cancelled_job_is_retried(stack: FaultStack, oracle: Oracle) -> None:
    """The new job starts from the old one's newest checkpoint, and ends as if nothing had been."""
    old = stack.submit(middling_pretrain(), "retried")
    stack.wait_for_step(old, 50)
    stack.ask(lambda client: client.cancel(old))
    oracle.check(old, "cancelled", outcomes=["stopped"])
    new = stack.ask(lambda client: client.retry(old)).id
    stack.wait_for_step(new, 80)
    kill(stack.ranks(new))
    oracle.check(new, outcomes=["crashed", "ok"])
    (left,) = [line.step for line in stack.lines(old, 1) if line.kind == "stopped"]
    assert stack.wait_for_line(new, "started").step == left
