"""Pause and resume in every state, and what a pause means for an attempt that ends otherwise."""

from __future__ import annotations

import pytest
from lab import LEASE, Lab

from service.ledger import attempts
from service.ledger.errors import IllegalVerb
from service.ledger.reasons import words
from service.ledger.states import AttemptOutcome, JobState, Verb


def stop_of(lab: Lab, job_id: object) -> str | None:
    attempt = lab.attempt(job_id)
    with lab.sessions.begin() as session:
        renewal = attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE)
    assert renewal is not None
    return renewal.stop


def test_a_queued_job_is_paused_at_once_and_resumed_where_it_stood(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    before = lab.job(job_id)
    job = lab.pause(job_id, actor="alice")
    assert (job.state, words(job.reason_code, job.reason)) == (JobState.PAUSED, "paused by alice")
    lab.place()
    assert lab.job(job_id).state == JobState.PAUSED
    assert lab.pause(job_id).event_seq == job.event_seq  # a second one changes nothing
    assert lab.resume(job_id).state == JobState.QUEUED
    assert lab.job(job_id).order_key > before.order_key  # a paused job does not age
    assert lab.kinds(job_id) == ["submitted", "paused", "resumed", "released"]
    lab.run(job_id, AttemptOutcome.OK)


def test_a_placed_job_is_paused_and_its_slots_are_free(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    lab.place()
    attempt = lab.attempt(job_id)
    assert lab.pause(job_id).state == JobState.PAUSED
    assert lab.accept(attempt) is None
    assert [slot.attempt_id for slot in lab.slots()] == [None, None]


def test_a_running_job_is_told_and_is_paused_when_its_attempt_has_ended(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    job = lab.pause(job_id, actor="alice")
    assert (job.state, words(job.reason_code, job.reason)) == (JobState.RUNNING, "is being stopped: paused by alice")
    assert stop_of(lab, job_id) == "pause"
    with lab.sessions() as session:
        assert attempts.stop_requested(session, [attempt.id]) == [attempt.id]
    assert lab.end(attempt, AttemptOutcome.STOPPED)
    job = lab.job(job_id)
    assert (job.state, job.restarts, job.pause_requested_at) == (JobState.PAUSED, 0, None)
    assert lab.slots()[0].attempt_id is None
    lab.resume(job_id)
    assert lab.start(job_id).number == 2
    assert stop_of(lab, job_id) is None


@pytest.mark.parametrize(
    ("outcome", "state", "restarts"),
    [
        (AttemptOutcome.OK, JobState.SUCCEEDED, 0),
        (AttemptOutcome.DIVERGED, JobState.FAILED, 0),
        (AttemptOutcome.CRASHED, JobState.PAUSED, 1),
        (AttemptOutcome.STALLED, JobState.PAUSED, 1),
        (AttemptOutcome.LOST, JobState.PAUSED, 0),
        (AttemptOutcome.DRAINED, JobState.PAUSED, 0),
    ],
)
def test_an_end_that_comes_before_the_pause_stands(
    lab: Lab, outcome: AttemptOutcome, state: JobState, restarts: int
) -> None:
    lab.node()
    job_id = lab.submit(max_restarts=1)
    attempt = lab.start(job_id)
    lab.pause(job_id)
    assert lab.end(attempt, outcome)
    assert (lab.job(job_id).state, lab.job(job_id).restarts) == (state, restarts)


def test_a_crash_with_no_retry_left_fails_also_while_it_is_being_paused(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit(max_restarts=0)
    attempt = lab.start(job_id)
    lab.pause(job_id)
    lab.end(attempt, AttemptOutcome.CRASHED)
    assert lab.job(job_id).state == JobState.FAILED


def test_a_pause_that_is_taken_back_in_time_changes_nothing(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    lab.pause(job_id)
    assert lab.resume(job_id).reason_code is None
    assert stop_of(lab, job_id) is None
    # The trainer had obeyed already: the job goes on with its next attempt, at no cost.
    lab.end(attempt, AttemptOutcome.STOPPED)
    assert (lab.job(job_id).state, lab.job(job_id).restarts) == (JobState.QUEUED, 0)


def test_a_cancel_after_a_pause_wins(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    lab.pause(job_id)
    lab.cancel(job_id, actor="bob")
    assert stop_of(lab, job_id) == "cancel"
    for ask in (lab.pause, lab.resume):
        with pytest.raises(IllegalVerb, match=r"a job that is being cancelled cannot be asked to .*; it allows cancel"):
            ask(job_id)
    lab.end(attempt, AttemptOutcome.STOPPED)
    job = lab.job(job_id)
    assert (job.state, words(job.reason_code, job.reason)) == (JobState.CANCELLED, "cancelled by bob")


def test_a_job_paused_while_it_waits_waits_again_or_is_released(lab: Lab) -> None:
    lab.node()
    first = lab.submit()
    second = lab.submit(after=[first])
    assert lab.pause(second).state == JobState.PAUSED
    assert lab.resume(second).state == JobState.WAITING
    assert lab.job(second).reason_code == "waits_for_job"
    lab.pause(second)
    lab.run(first, AttemptOutcome.OK)
    lab.release()
    assert lab.job(second).state == JobState.PAUSED
    assert lab.resume(second).state == JobState.QUEUED


def test_a_resumed_job_of_a_failed_dependency_is_cancelled_with_those_behind_it(
    lab: Lab,
) -> None:
    lab.node()
    first = lab.submit()
    second = lab.submit(after=[first])
    third = lab.submit(after=[second])
    lab.pause(second)
    lab.run(first, AttemptOutcome.BAD_SPEC)
    assert (lab.job(second).state, lab.job(third).state) == (JobState.PAUSED, JobState.WAITING)
    assert lab.resume(second).state == JobState.CANCELLED
    assert lab.job(third).state == JobState.CANCELLED


def test_a_paused_job_is_cancelled_at_once(lab: Lab) -> None:
    job_id = lab.submit()
    lab.pause(job_id)
    behind = lab.submit(after=[job_id])
    assert lab.cancel(job_id).state == JobState.CANCELLED
    assert lab.job(behind).state == JobState.CANCELLED


def test_the_back_off_of_a_retry_ends_with_the_pause(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit(max_restarts=3)
    lab.run(job_id, AttemptOutcome.CRASHED)
    assert lab.job(job_id).not_before is not None
    lab.pause(job_id)
    lab.resume(job_id)
    lab.start(job_id)


@pytest.mark.parametrize("state", list(JobState))
def test_what_may_be_asked_in_each_state_is_what_is_done(lab: Lab, state: JobState) -> None:
    lab.node()
    job_id = lab.submit(after=[lab.submit()]) if state is JobState.WAITING else lab.submit()
    match state:
        case JobState.RUNNING:
            lab.start(job_id)
        case JobState.PAUSED:
            lab.pause(job_id)
        case JobState.SUCCEEDED:
            lab.run(job_id, AttemptOutcome.OK)
        case JobState.FAILED:
            lab.run(job_id, AttemptOutcome.BAD_SPEC)
        case JobState.CANCELLED:
            lab.cancel(job_id)
    assert lab.job(job_id).state == state
    legal = {
        JobState.WAITING: {"cancel", "pause"},
        JobState.QUEUED: {"cancel", "pause"},
        JobState.RUNNING: {"cancel", "pause"},
        JobState.PAUSED: {"cancel", "resume"},
        JobState.SUCCEEDED: set(),
        JobState.FAILED: {"retry"},
        JobState.CANCELLED: {"retry"},
    }[state]
    asks = {Verb.PAUSE: lab.pause, Verb.RESUME: lab.resume, Verb.RETRY: lab.retry}
    for verb, ask in asks.items():
        if verb not in legal and not (state is JobState.PAUSED and verb is Verb.PAUSE):
            before = lab.job(job_id).event_seq
            with pytest.raises(IllegalVerb) as refused:
                ask(job_id)
            assert refused.value.legal == sorted(legal)
            assert f"a job that {state.words} cannot be asked to {verb}" in str(refused.value)
            assert lab.job(job_id).event_seq == before
