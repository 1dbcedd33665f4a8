"""The stop and stall clocks run before and after the ranks of an attempt: a disk that does not answer holds nobody."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from worker_host import Host, at_work, small_pretraining

from service import completion
from service.settings import Settings
from worker import clock, inputs
from worker.attempt import NO_END
from worker.file_work import FileWork, GivenUp


@pytest.fixture
def deaf_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Whoever looks for a data set waits, as on a disk that does not answer; the event says that somebody does."""
    waiting, answers = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        waiting.set()
        answers.wait()

    monkeypatch.setattr(inputs, "source_on_host", wait)
    yield waiting
    answers.set()


@pytest.mark.parametrize(("verb", "state"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_stop_is_obeyed_while_the_inputs_are_looked_at(
    host: Host, deaf_disk: threading.Event, verb: str, state: str
) -> None:
    job_id = host.post(small_pretraining())
    host.wait(deaf_disk.is_set)
    getattr(host, verb)(job_id)
    host.wait(lambda: host.job(job_id).state == state)
    assert [attempt.outcome for attempt in host.attempts_of(job_id)] == ["stopped"]
    assert all(slot.attempt_id is None for slot in host.slots("host-1"))


def test_inputs_that_do_not_come_are_a_stall_which_is_retried_once(host: Host, deaf_disk: threading.Event) -> None:
    job_id = host.post(small_pretraining(run={"stall_seconds": 1}))
    job = host.finish(job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["message"].startswith("no progress for 1 s before the trainer was started: a disk")
    assert [attempt.outcome for attempt in host.attempts_of(job_id)] == ["stalled", "stalled"]


@pytest.fixture
def deaf_weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Whoever reads a published backbone waits, within the transaction that tells the end of its attempt."""
    waiting, answers = threading.Event(), threading.Event()

    def wait(session: Session, *_: object) -> None:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '200ms'"))
        waiting.set()
        answers.wait()

    monkeypatch.setattr(completion, "_backbone_row", wait)
    yield waiting
    answers.set()


@pytest.fixture
def hasty_host(database: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Its ranks are killed a second after they were told to stop."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield from at_work(Host(database, stop_grace_seconds=0.5))


def test_an_end_that_cannot_be_told_is_a_stall(
    host: Host, deaf_weights: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled = FileWork.stalled
    monkeypatch.setattr(FileWork, "stalled", lambda work, *some: deaf_weights.is_set() or stalled(work, *some))
    job_id = host.post(small_pretraining())
    host.wait(lambda: host.attempts_of(job_id)[:1] != [] and host.attempts_of(job_id)[0].outcome is not None)
    first = host.attempts_of(job_id)[0]
    assert (first.outcome, first.message) == ("stalled", NO_END.format(600))
    host.cancel(job_id)
    host.finish(job_id)


def test_a_stop_is_obeyed_while_an_end_cannot_be_told(hasty_host: Host, deaf_weights: threading.Event) -> None:
    job_id = hasty_host.post(small_pretraining())
    hasty_host.wait(deaf_weights.is_set)
    hasty_host.cancel(job_id)
    hasty_host.wait(lambda: hasty_host.job(job_id).state == "cancelled")
    assert [attempt.outcome for attempt in hasty_host.attempts_of(job_id)] == ["stopped"]
    assert all(slot.attempt_id is None for slot in hasty_host.slots("host-1"))


def test_what_was_given_up_does_no_further_piece() -> None:
    done, go_on = [], threading.Event()

    def work(tick):
        go_on.wait()
        tick()
        done.append("too late")

    file_work = FileWork(work, 1.0, "test")
    file_work.give_up()
    go_on.set()
    assert file_work.wait(20)
    assert done == []
    with pytest.raises(GivenUp):
        file_work.result()


def test_every_piece_begins_the_wait_anew_and_an_error_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(clock, "now", lambda: now)
    go_on, ticked = threading.Semaphore(0), threading.Semaphore(0)

    def work(tick):
        for _ in range(5):
            go_on.acquire()
            tick()
            ticked.release()
        go_on.acquire()
        raise ValueError("no such file")

    file_work = FileWork(work, 1.0, "test")
    for _ in range(5):
        now += 0.9
        assert not file_work.stalled()
        go_on.release()
        ticked.acquire()
        now += 0.9
        assert not file_work.stalled(), "a piece was done since the last look"
    now += 0.9
    assert not file_work.stalled()
    now += 0.9
    assert file_work.stalled()
    go_on.release()
    assert file_work.wait(20)
    with pytest.raises(ValueError, match="no such file"):
        file_work.result()
