"""Cancel in every state, and what becomes of the jobs that waited."""

from __future__ import annotations

import uuid

import pytest
from lab import LEASE, Lab

from service.ledger import attempts, dependants
from service.ledger.reasons import words
from service.ledger.states import AttemptOutcome, AttemptState, JobState


def stop_of(lab: Lab, job_id: uuid.UUID) -> str | None:
    attempt = lab.attempt(job_id)
    with lab.sessions.begin() as session:
        renewal = attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE)
    assert renewal is not None
    return renewal.stop


def test_a_queued_job_is_cancelled_at_once(lab: Lab) -> None:
    job_id = lab.submit()
    job = lab.cancel(job_id, actor="alice")
    assert (job.state, job.reason_code, job.reason) == (JobState.CANCELLED, "cancelled", {"actor": "alice"})
    assert job.finished_at is not None
    lab.node()
    lab.place()
    assert lab.kinds(job_id) == ["submitted", "cancelled"]


def test_a_waiting_job_is_cancelled_at_once(lab: Lab) -> None:
    first = lab.submit()
    assert lab.cancel(lab.submit(after=[first])).state == JobState.CANCELLED
    assert lab.job(first).state == JobState.QUEUED


def test_a_placed_job_is_cancelled_and_cannot_be_accepted(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    lab.place()
    attempt = lab.attempt(job_id)
    assert lab.cancel(job_id).state == JobState.CANCELLED
    assert lab.accept(attempt) is None
    assert (lab.attempt(job_id).state, lab.attempt(job_id).outcome) == (AttemptState.ENDED, AttemptOutcome.STOPPED)
    assert lab.slots()[0].attempt_id is None


@pytest.mark.parametrize(
    "outcome",
    [
        AttemptOutcome.STOPPED,
        AttemptOutcome.CRASHED,
        AttemptOutcome.STALLED,
        AttemptOutcome.LOST,
        AttemptOutcome.DRAINED,
    ],
)
def test_a_running_job_is_told_and_cancelled_when_its_attempt_ends(lab: Lab, outcome: AttemptOutcome) -> None:
    lab.node()
    job_id = lab.submit(max_restarts=3)
    attempt = lab.start(job_id)
    assert stop_of(lab, job_id) is None
    job = lab.cancel(job_id, actor="alice")
    assert (job.state, job.reason_code) == (JobState.RUNNING, "stopping")
    assert words(job.reason_code, job.reason) == "is being stopped: cancelled by alice"
    assert stop_of(lab, job_id) == "cancel"
    lab.cancel(job_id, actor="bob")  # a second request changes nothing
    assert lab.kinds(job_id).count("cancel_requested") == 1
    with lab.sessions.begin() as session:
        assert attempts.stopping(session, attempt.id, attempt.token, why="cancel")
    assert stop_of(lab, job_id) == "cancel"
    assert lab.end(attempt, outcome)
    job = lab.job(job_id)
    assert (job.state, job.reason_code, job.reason) == (JobState.CANCELLED, "cancelled", {"actor": "alice"})


def test_a_cancelled_job_whose_worker_is_lost_is_cancelled_by_the_reaper(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    lab.cancel(job_id)
    lab.expire(attempt)
    lab.reap()
    assert lab.job(job_id).state == JobState.CANCELLED
    assert lab.slots()[0].quarantined_at is not None


def test_success_and_failure_win_against_a_cancel_that_came_late(lab: Lab) -> None:
    lab.node()
    for outcome, state in ((AttemptOutcome.OK, JobState.SUCCEEDED), (AttemptOutcome.DIVERGED, JobState.FAILED)):
        job_id = lab.submit()
        attempt = lab.start(job_id)
        lab.cancel(job_id)
        assert lab.end(attempt, outcome)
        assert lab.job(job_id).state == state


def test_a_terminal_job_stays_as_it_is(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    lab.run(job_id, AttemptOutcome.OK)
    events = lab.kinds(job_id)
    assert lab.cancel(job_id).state == JobState.SUCCEEDED
    assert lab.kinds(job_id) == events


def test_a_waiting_job_is_released_when_all_it_waits_for_succeeded(lab: Lab) -> None:
    lab.node()
    first, second = lab.submit("one"), lab.submit("two")
    waiting = lab.submit("three", after=[first], source=second)
    job = lab.job(waiting)
    assert (job.state, job.after, job.source_job_id, job.queued_at) == (JobState.WAITING, [first, second], second, None)
    assert words(job.reason_code, job.reason) == f"waits for job one ({first}), job two ({second})"
    lab.place()
    lab.end(lab.accept(lab.attempt(first)), AttemptOutcome.OK)
    job = lab.job(waiting)
    assert (job.state, words(job.reason_code, job.reason)) == (JobState.WAITING, f"waits for job two ({second})")
    key_while_waiting = job.order_key
    lab.end(lab.accept(lab.attempt(second)), AttemptOutcome.OK)
    job = lab.job(waiting)
    assert (job.state, job.reason_code) == (JobState.QUEUED, None)
    assert job.order_key > key_while_waiting  # its age in the queue counts from now
    assert lab.kinds(waiting) == ["submitted", "released"]


def test_a_job_that_waits_for_finished_ones_is_queued_at_once(lab: Lab) -> None:
    lab.node()
    first = lab.submit()
    lab.run(first, AttemptOutcome.OK)
    assert lab.job(lab.submit(after=[first, first])).state == JobState.QUEUED


def test_failure_cancels_the_whole_chain_and_names_the_job(lab: Lab) -> None:
    lab.node()
    root = lab.submit("root")
    left, right = lab.submit("left", after=[root]), lab.submit("right", after=[root])
    last = lab.submit("last", after=[left, right])
    other = lab.submit("other")
    lab.run(root, AttemptOutcome.BAD_DATA)
    for job_id, name in ((left, "root"), (right, "root"), (last, "left")):
        job = lab.job(job_id)
        assert (job.state, job.reason_code, job.reason["name"]) == (JobState.CANCELLED, "dependency_failed", name)
    reason = lab.job(left).reason
    assert words("dependency_failed", reason) == f"cancelled: job root ({root}), which it waited for, has failed"
    assert lab.job(other).state == JobState.QUEUED


def test_cancelling_a_job_cancels_those_that_wait_for_it(lab: Lab) -> None:
    root = lab.submit("root")
    middle = lab.submit("middle", after=[root])
    last = lab.submit("last", after=[middle])
    lab.cancel(middle)
    assert (lab.job(root).state, lab.job(last).state) == (JobState.QUEUED, JobState.CANCELLED)
    assert lab.job(last).reason == {"id": str(middle), "name": "middle", "state": "cancelled"}


def test_a_long_chain_is_cancelled_as_well(lab: Lab) -> None:
    chain = [lab.submit()]
    for _ in range(40):
        chain.append(lab.submit(after=[chain[-1]]))
    lab.cancel(chain[0])
    assert {lab.job(job_id).state for job_id in chain} == {JobState.CANCELLED}


def test_the_scheduler_releases_a_job_whose_submit_crossed_the_end_of_the_other(lab: Lab) -> None:
    lab.node()
    first = lab.submit("first")
    attempt = lab.start(first)
    # A submit that has looked, but not committed, while the other job ends.
    with lab.sessions() as late:
        waiting = lab.submit_in(late, after=[first])
        assert lab.end(attempt, AttemptOutcome.OK)
        late.commit()
    assert lab.job(waiting).state == JobState.WAITING
    lab.release()
    assert lab.job(waiting).state == JobState.QUEUED


def test_the_scheduler_cancels_a_whole_chain_whose_submit_crossed_a_failure(lab: Lab) -> None:
    lab.node()
    first = lab.submit("first")
    attempt = lab.start(first)
    with lab.sessions() as late:
        middle = lab.submit_in(late, "middle", after=[first])
        last = lab.submit_in(late, "last", after=[middle])
        assert lab.end(attempt, AttemptOutcome.DIVERGED)
        late.commit()
    assert lab.job(middle).state == lab.job(last).state == JobState.WAITING
    with lab.sessions.begin() as session:
        assert dependants.ready_to_settle(session) == [middle]
        assert dependants.settle(session, middle) is JobState.CANCELLED
    assert lab.job(last).reason == {"id": str(middle), "name": "middle", "state": "cancelled"}


def test_a_worker_is_told_of_a_cancel_until_it_has_passed_it_on(lab: Lab) -> None:
    lab.node(slots=2)
    asked, other = (lab.start(lab.submit()) for _ in range(2))
    lab.cancel(asked.job_id)

    def found() -> list[uuid.UUID]:
        with lab.sessions() as session:
            return attempts.stop_requested(session, [asked.id, other.id])

    assert found() == [asked.id]
    with lab.sessions.begin() as session:
        assert attempts.stopping(session, asked.id, asked.token, why="cancel")
    assert found() == []
