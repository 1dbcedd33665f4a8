"""Ghosts, repeats and races: who may write, and what the others' writes do (nothing)."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab import LEASE, Lab
from sqlalchemy.exc import IntegrityError

from service.database.tables import Attempt
from service.ledger import attempts, losses, nodes
from service.ledger.moves import lock_job
from service.ledger.states import AttemptOutcome, AttemptState, JobState


def snapshot(lab: Lab, job_id: uuid.UUID) -> list[object]:
    job, attempt = lab.job(job_id), lab.attempt(job_id)
    slots = [(slot.attempt_id, slot.quarantined_at) for slot in lab.slots()]
    return [job.state, job.event_seq, job.error, attempt.state, attempt.outcome, attempt.lease_expires_at, slots]


def every_write(lab: Lab, attempt: Attempt, token: uuid.UUID) -> list[object]:
    answers: list[object] = []
    with lab.sessions.begin() as session:
        answers.append(attempts.renew(session, attempt.id, token, lease_seconds=LEASE))
        answers.append(attempts.running(session, attempt.id, token))
        answers.append(attempts.stopping(session, attempt.id, token, why="test"))
    stranger = Attempt(id=attempt.id, token=token)
    return [*answers, lab.end(stranger, AttemptOutcome.OK), lab.end(stranger, AttemptOutcome.CRASHED)]


def test_a_wrong_token_changes_nothing(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    before = snapshot(lab, job_id)
    assert every_write(lab, attempt, uuid.uuid4()) == [None, False, False, False, False]
    assert snapshot(lab, job_id) == before


def test_a_reaped_attempt_is_a_ghost_and_its_slots_are_quarantined(lab: Lab) -> None:
    lab.node(slots=2)
    job_id = lab.submit()
    ghost = lab.start(job_id)
    lab.expire(ghost)
    lab.reap()
    job = lab.job(job_id)
    assert (job.state, job.restarts, job.reason_code) == (JobState.QUEUED, 0, "requeued")
    assert "lost node gpu-1" in job.reason["why"]
    assert [(slot.attempt_id, slot.quarantined_at is not None) for slot in lab.slots()] == [
        (ghost.id, True),
        (None, False),
    ]
    before = snapshot(lab, job_id)
    assert every_write(lab, ghost, ghost.token) == [None, False, False, False, False]
    assert snapshot(lab, job_id) == before
    # The job goes on, on the slot that is not in quarantine.
    second = lab.start(job_id)
    assert [slot.attempt_id for slot in lab.slots()] == [ghost.id, second.id]
    assert every_write(lab, ghost, ghost.token) == [None, False, False, False, False]
    with lab.sessions.begin() as session:
        assert [slot.index for slot in nodes.quarantined(session, "gpu-1")] == [0]
        assert nodes.release_quarantined(session, "gpu-1", [0, 1]) == 1
    assert [slot.attempt_id for slot in lab.slots()] == [None, second.id]


def test_an_expired_lease_that_nobody_reaped_can_be_renewed(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    lab.expire(attempt)
    with lab.sessions.begin() as session:
        renewal = attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE)
    assert renewal is not None
    assert renewal.lease_expires_at == lab.attempt(job_id).lease_expires_at
    lab.reap()
    assert lab.job(job_id).state == JobState.RUNNING


def test_a_renewal_between_the_look_and_the_reap_wins(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    lab.expire(attempt)
    with lab.sessions() as reaper:
        assert losses.expired(reaper) == [attempt.id]
        with lab.sessions.begin() as worker:
            assert attempts.renew(worker, attempt.id, attempt.token, lease_seconds=LEASE)
        assert losses.reap(reaper, attempt.id, lab.complete) is None
        reaper.commit()
    assert lab.job(job_id).state == JobState.RUNNING


def test_an_attempt_that_nobody_accepts_gives_its_slots_back(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    lab.place()
    late = lab.attempt(job_id)
    lab.expire(late)
    lab.reap()
    job = lab.job(job_id)
    assert (job.state, job.restarts, job.reason_code) == (JobState.QUEUED, 0, "requeued")
    assert all(slot.attempt_id is None and slot.quarantined_at is None for slot in lab.slots())
    assert lab.accept(late) is None
    lab.place()
    assert lab.attempt(job_id).number == 2


def test_a_worker_that_lost_its_name_accepts_nothing(lab: Lab) -> None:
    """Frozen or cut off for longer than the lease, it may be woken before its next heartbeat tells it."""
    lab.node()
    former = lab.instances["gpu-1"]
    lab.unseen("gpu-1")
    lab.node(instance=uuid.uuid4())
    lab.submit()
    lab.place()
    with lab.sessions() as session:
        (placed,) = attempts.placed_on(session, "gpu-1")
    attempt = lab.attempt_row(placed)
    assert lab.accept(attempt, instance=former) is None
    assert lab.accept(attempt) is not None


def test_the_job_waits_only_for_the_node_it_was_placed_on(lab: Lab) -> None:
    lab.node("gpu-1")
    job_id = lab.submit()
    lab.place()
    lab.node("gpu-2")
    attempt = lab.attempt(job_id)
    with lab.sessions() as session:
        assert attempts.placed_on(session, "gpu-1") == [attempt.id]
        assert attempts.placed_on(session, "gpu-2") == []
    assert lab.accept(attempt, node="gpu-2") is None
    assert lab.accept(attempt) is not None
    with lab.sessions() as session:
        assert attempts.placed_on(session, "gpu-1") == []


def test_of_many_that_accept_at_once_one_gets_it(lab: Lab) -> None:
    lab.node()
    lab.place()
    job_id = lab.submit()
    lab.place()
    attempt = lab.attempt(job_id)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: lab.accept(attempt), range(8)))
    assert sum(answer is not None for answer in answers) == 1
    assert lab.kinds(job_id).count("started") == 1


def test_words_that_are_said_twice_are_still_true(lab: Lab) -> None:
    # The connection may break between a commit and its answer; the worker asks again and must not think it is a ghost.
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    with lab.sessions.begin() as session:
        for _ in range(2):
            assert attempts.running(session, attempt.id, attempt.token)
        for _ in range(2):
            assert attempts.stopping(session, attempt.id, attempt.token, why="cancel")
        assert not attempts.running(session, attempt.id, attempt.token)
    assert lab.end(attempt, AttemptOutcome.OK)
    events = lab.kinds(job_id)
    assert lab.end(attempt, AttemptOutcome.OK)
    assert not lab.end(attempt, AttemptOutcome.CRASHED)
    assert lab.kinds(job_id) == events
    assert events.count("attempt_running") == events.count("attempt_stopping") == 1


def test_a_terminal_job_never_moves(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    lab.run(job_id, AttemptOutcome.OK)
    before = snapshot(lab, job_id)
    lab.cancel(job_id)
    lab.place()
    lab.reap()
    lab.release()
    assert snapshot(lab, job_id) == before


def test_two_live_attempts_of_a_job_are_refused_by_the_database_itself(lab: Lab) -> None:
    lab.node()
    job_id = lab.submit()
    lab.start(job_id)
    with lab.sessions() as session:
        session.add(Attempt(job_id=job_id, number=2, node="gpu-1", state=AttemptState.PLACED))
        with pytest.raises(IntegrityError, match="uq_attempts_live"):
            session.flush()


def test_slots_that_are_not_free_any_more_are_not_given(lab: Lab) -> None:
    lab.node(slots=2)
    first, second = lab.submit(), lab.submit(slots=2)
    lab.start(first)
    with lab.sessions.begin() as session:
        job = lock_job(session, second)
        assert attempts.place(session, job, lab.slots(), lease_seconds=LEASE) is None
    assert [slot.attempt_id for slot in lab.slots()] == [lab.attempt(first).id, None]
    assert lab.job(second).state == JobState.QUEUED


def test_a_job_that_is_placed_is_not_placed_again(lab: Lab) -> None:
    lab.node(slots=2)
    job_id = lab.submit()
    lab.place()
    with lab.sessions.begin() as session:
        free = lab.slots()[1:]
        assert attempts.place(session, lock_job(session, job_id), free, lease_seconds=LEASE) is None
    assert lab.attempt(job_id).number == 1


def test_rows_that_refer_to_a_locked_job_can_be_written(lab: Lab) -> None:
    # The recorder inserts metrics while the ledger holds the job's lock: neither waits for the other.
    job_id = lab.submit()
    done = threading.Event()

    def record() -> None:
        with lab.engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO metrics (job_id, key, step, value, at, attempt) VALUES (%s, 'loss', 1, 0.5, now(), 1)",
                (job_id,),
            )
        done.set()

    with lab.sessions() as session:
        lock_job(session, job_id)
        thread = threading.Thread(target=record)
        thread.start()
        assert done.wait(20)
        thread.join()
        session.rollback()
