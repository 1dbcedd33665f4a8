"""The road of a job: submitted, placed, accepted, renewed, ended; and what each way to end means for the job."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from lab import BACKOFF, LEASE, Lab

from barlow_lab.specs import digest, parse_spec
from service.ledger import attempts
from service.ledger.errors import DependencyFailed, IllegalMove, JobNameTaken, NotFound
from service.ledger.moves import lock_job, move_job
from service.ledger.states import JOB_MOVES, AttemptOutcome, AttemptState, JobEvent, JobState
from service.settings import Settings


def test_a_job_goes_from_submit_to_success(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit("first")
    attempt = lab.start(job_id)
    assert (lab.job(job_id).state, lab.job(job_id).reason_code) == ("running", None)
    with lab.sessions.begin() as session:
        assert attempts.running(session, attempt.id, attempt.token)
        renewal = attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE)
    assert renewal is not None
    assert renewal.stop is None
    assert lab.end(attempt, AttemptOutcome.OK, result={"knn_top1": 0.9})
    job = lab.job(job_id)
    assert (job.state, job.result, job.error) == (JobState.SUCCEEDED, {"knn_top1": 0.9}, None)
    assert lab.kinds(job_id) == [
        "submitted", "attempt_placed", "attempt_accepted", "started", "attempt_running", "attempt_ended", "succeeded",
    ]  # fmt: skip
    assert all(slot.attempt_id is None for slot in lab.slots())
    assert job.created_at <= job.queued_at <= job.started_at <= job.finished_at


def test_a_job_row_holds_what_the_spec_says(lab: Lab) -> None:
    job = lab.job(lab.submit(slots=2, priority=3, labels={"who": "me"}))
    assert (job.kind, job.slots, job.nodes, job.priority, job.labels) == ("pretrain", 2, 1, 3, {"who": "me"})
    assert job.spec_digest == digest(parse_spec(job.spec))
    assert job.name == f"pretrain-{str(job.id)[-12:]}"


def test_a_name_is_unique_in_its_experiment(lab: Lab) -> None:
    lab.submit("one")
    with pytest.raises(JobNameTaken, match=r"'one'.*choose another"):
        lab.submit("one")


def test_submit_tells_the_scheduler_and_the_listeners(lab: Lab, database: Settings) -> None:
    with psycopg.connect(database.database_url.get_secret_value(), autocommit=True) as listener:
        listener.execute("LISTEN barlow_jobs")
        listener.execute("LISTEN barlow_events")
        job_id = lab.submit()
        heard = {(note.channel, note.payload) for note in listener.notifies(timeout=20, stop_after=2)}
    assert heard == {("barlow_jobs", str(job_id)), ("barlow_events", str(job_id))}


@pytest.mark.parametrize(
    "outcome", [AttemptOutcome.BAD_SPEC, AttemptOutcome.BAD_DATA, AttemptOutcome.OUT_OF_MEMORY, AttemptOutcome.DIVERGED]
)
def test_what_a_retry_cannot_mend_fails_at_once_with_its_message(lab: Lab, outcome: AttemptOutcome) -> None:
    lab.node()
    job = lab.run(
        lab.submit(max_restarts=3), outcome, "what went wrong", error={"log_tail": ["last"], "traceback": "T"}
    )
    assert job.state == JobState.FAILED
    assert job.error == {"class": outcome, "message": "what went wrong", "log_tail": ["last"], "traceback": "T"}


def test_a_crash_is_retried_with_a_growing_wait_and_then_fails(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit(max_restarts=2)
    waits = []
    for retry in (1, 2):
        job = lab.run(job_id, AttemptOutcome.CRASHED, "signal 9")
        assert (job.state, job.restarts, job.reason_code) == (JobState.QUEUED, retry, "backing_off")
        assert {key: job.reason[key] for key in ("retry", "of", "why")} == {"retry": retry, "of": 2, "why": "signal 9"}
        assert datetime.fromisoformat(job.reason["until"]) == job.not_before
        waits.append((job.not_before - job.queued_at).total_seconds())
    assert waits == [BACKOFF, 2 * BACKOFF]
    job = lab.run(job_id, AttemptOutcome.CRASHED, "signal 9", error={"log_tail": ["line"]})
    assert job.state == JobState.FAILED
    assert job.error["message"] == "signal 9 (after 2 retries)"
    assert (job.error["class"], job.error["log_tail"]) == ("crashed", ["line"])
    assert lab.attempt(job_id).number == 3


def test_a_job_that_backs_off_is_not_placed_before_its_time(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    lab.run(job_id, AttemptOutcome.CRASHED)
    lab.place()
    assert lab.attempt(job_id).state == AttemptState.ENDED
    assert lab.job(job_id).reason_code == "backing_off"
    lab.skip_backoff(job_id)
    lab.place()
    assert (lab.attempt(job_id).state, lab.attempt(job_id).number) == (AttemptState.PLACED, 2)
    lab.accept(lab.attempt(job_id))
    assert lab.job(job_id).not_before is None


def test_the_wait_before_a_retry_is_bounded(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit(max_restarts=100)
    job = lab.run(job_id, AttemptOutcome.CRASHED, backoff_seconds=1e9)
    assert (job.not_before - job.queued_at).total_seconds() == 3600


def test_a_stall_is_retried_once(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit(max_restarts=5)
    assert lab.run(job_id, AttemptOutcome.STALLED).state == JobState.QUEUED
    assert lab.run(job_id, AttemptOutcome.CRASHED).state == JobState.QUEUED
    job = lab.run(job_id, AttemptOutcome.STALLED, "no step for 600 s")
    assert (job.state, job.error["class"]) == (JobState.FAILED, "stalled")


def test_without_restarts_the_first_stall_and_the_first_crash_fail(lab: Lab) -> None:
    lab.node()
    for outcome in (AttemptOutcome.STALLED, AttemptOutcome.CRASHED):
        assert lab.run(lab.submit(max_restarts=0), outcome).state == JobState.FAILED


@pytest.mark.parametrize("outcome", [AttemptOutcome.LOST, AttemptOutcome.DRAINED, AttemptOutcome.STOPPED])
def test_what_is_not_the_jobs_fault_is_queued_again_uncounted(lab: Lab, outcome: AttemptOutcome) -> None:
    lab.node()
    job_id = lab.submit(max_restarts=0)
    for number in (1, 2, 3):
        job = lab.run(job_id, outcome, "the host goes away")
        assert (job.state, job.restarts, job.not_before) == (JobState.QUEUED, 0, None)
        assert job.reason == {"why": f"the host goes away ({outcome})"}
        assert lab.attempt(job_id).number == number


def test_a_job_keeps_its_place_in_the_queue_when_it_is_queued_again(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    before = lab.job(job_id).order_key
    assert lab.run(job_id, AttemptOutcome.LOST).order_key == before
    assert lab.job(lab.submit()).order_key > before


def test_unknown_jobs_are_said_so(lab: Lab) -> None:
    stranger = lab.submit()
    with lab.sessions.begin() as session:
        ghost = session.connection().exec_driver_sql("SELECT uuidv7()").scalar_one()
    with pytest.raises(NotFound, match=str(ghost)):
        lab.cancel(ghost)
    with pytest.raises(NotFound, match=str(ghost)):
        lab.submit(after=[stranger, ghost])
    lab.cancel(stranger)
    with pytest.raises(DependencyFailed, match="cancelled; retry it"):
        lab.submit(source=stranger)


@pytest.mark.parametrize("state", list(JobState))
def test_only_the_moves_of_the_table_are_possible(lab: Lab, state: JobState) -> None:
    lab.node(slots=1)

    def job_in(state: JobState) -> object:
        if state is JobState.WAITING:
            return lab.submit(after=[lab.submit()])
        job_id = lab.submit()
        if state is JobState.RUNNING:
            lab.start(job_id)
        elif state is JobState.PAUSED:
            lab.pause(job_id)
        elif state is JobState.CANCELLED:
            lab.cancel(job_id)
        elif state.terminal:
            lab.run(job_id, AttemptOutcome.OK if state is JobState.SUCCEEDED else AttemptOutcome.BAD_SPEC)
        return job_id

    job_id = job_in(state)
    for event in JobEvent:
        with lab.sessions() as session:
            job = lock_job(session, job_id)
            assert job.state == state
            if (state, event) in JOB_MOVES:
                move_job(session, job, event, actor="test", payload={})
                assert job.state == JOB_MOVES[state, event]
            else:
                with pytest.raises(IllegalMove, match=f"a job that {state.words} cannot be {event}"):
                    move_job(session, job, event, actor="test", payload={})
            session.rollback()


def test_times_are_told_in_utc(lab: Lab) -> None:
    created = lab.job(lab.submit()).created_at
    assert created.utcoffset() == datetime.now(UTC).utcoffset()
