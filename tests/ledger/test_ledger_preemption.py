"""Jobs of lower priority make room, if they allow it, and wait anew."""

from __future__ import annotations

import uuid

import pytest
from lab import LEASE, Lab

from service.ledger import attempts, reservations
from service.ledger.reasons import words
from service.ledger.states import AttemptOutcome, AttemptState, JobState


def preempt(lab: Lab, victim: uuid.UUID, by: uuid.UUID) -> bool:
    with lab.sessions.begin() as session:
        return reservations.request_preemption(session, lab.attempt(victim).id, by=lab.job(by))


def test_a_running_job_is_told_once_and_queued_behind_the_one_it_made_room_for(lab: Lab) -> None:
    lab.node(slots=1)
    victim = lab.submit(preemptible=True)
    attempt = lab.start(victim)
    urgent = lab.submit("urgent", priority=5)
    assert preempt(lab, victim, urgent)
    assert not preempt(lab, victim, urgent)
    assert lab.kinds(victim).count("preemption_requested") == 1
    with lab.sessions.begin() as session:
        assert attempts.stop_requested(session, [attempt.id]) == [attempt.id]
        renewal = attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE)
    assert renewal is not None
    assert renewal.stop == "preempt"
    assert lab.end(attempt, AttemptOutcome.STOPPED)
    job = lab.job(victim)
    assert (job.state, job.restarts) == (JobState.QUEUED, 0)
    assert words(job.reason_code, job.reason) == (
        f"queued again: it made room for job urgent ({urgent}), which has a higher priority"
    )
    assert job.order_key > lab.job(urgent).order_key
    lab.place()
    assert lab.attempt(urgent).state == AttemptState.PLACED
    assert lab.attempt(victim).number == 1


def test_a_placed_job_gives_its_slots_back_at_once(lab: Lab) -> None:
    lab.node(slots=1)
    victim = lab.submit(preemptible=True)
    lab.place()
    placed = lab.attempt(victim)
    urgent = lab.submit(priority=1)
    assert preempt(lab, victim, urgent)
    assert lab.accept(placed) is None
    assert (lab.job(victim).state, lab.job(victim).reason_code) == (JobState.QUEUED, "preempted")
    assert lab.slots()[0].attempt_id is None


@pytest.mark.parametrize(
    ("preemptible", "priority"), [(False, 5), (True, 0), (True, -1)], ids=["not allowed", "equal", "lower"]
)
def test_a_job_makes_room_only_where_it_allows_it_and_only_for_a_higher_priority(
    lab: Lab, preemptible: bool, priority: int
) -> None:
    lab.node(slots=1)
    victim = lab.submit(preemptible=preemptible)
    lab.start(victim)
    assert not preempt(lab, victim, lab.submit(priority=priority))
    assert "preemption_requested" not in lab.kinds(victim)


def test_a_cancel_or_a_pause_comes_before_the_room_it_makes(lab: Lab) -> None:
    lab.node(slots=2)
    first, second = lab.submit(preemptible=True), lab.submit(preemptible=True)
    lab.place()
    tries = [lab.accept(lab.attempt(job_id)) for job_id in (first, second)]
    urgent = lab.submit(priority=5)
    for job_id in (first, second):
        assert preempt(lab, job_id, urgent)
    lab.cancel(first)
    lab.pause(second)
    for attempt in tries:
        assert attempt is not None
        assert lab.end(attempt, AttemptOutcome.STOPPED)
    assert (lab.job(first).state, lab.job(second).state) == (JobState.CANCELLED, JobState.PAUSED)


def test_what_ended_by_itself_is_not_told(lab: Lab) -> None:
    lab.node(slots=1)
    victim = lab.submit(preemptible=True)
    lab.run(victim, AttemptOutcome.OK)
    assert not preempt(lab, victim, lab.submit(priority=5))


def test_a_reservation_goes_with_the_wait_it_was_made_for(lab: Lab) -> None:
    lab.node()
    for leave in (lab.start, lab.pause, lab.cancel):
        job_id = lab.submit()
        with lab.sessions.begin() as session:
            assert reservations.reserve(session, job_id, "gpu-1", preempting=True)
        assert lab.job(job_id).preempting
        leave(job_id)
        assert (lab.job(job_id).reserved_node, lab.job(job_id).preempting) == (None, False)
        with lab.sessions.begin() as session:
            assert not reservations.reserve(session, job_id, "gpu-1", preempting=False)


def test_nothing_is_kept_for_a_job_that_has_its_slots(lab: Lab) -> None:
    """It is queued until its node accepts it, but it does not wait: a reservation would outlive its wait."""
    lab.node()
    job_id = lab.submit()
    lab.place()
    assert lab.job(job_id).state == JobState.QUEUED
    with lab.sessions.begin() as session:
        assert not reservations.reserve(session, job_id, "gpu-1", preempting=True)
    assert lab.job(job_id).reserved_node is None
