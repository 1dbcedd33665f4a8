"""The stop and stall clocks of an attempt run before its ranks do: a disk that does not answer holds nobody."""

import threading
from collections.abc import Iterator

import pytest
from worker_host import Host, small_pretraining

from worker import clock, inputs
from worker.preparing import Preparation


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

    preparation = Preparation(work, 1.0, "test")
    for _ in range(5):
        now += 0.9
        assert not preparation.stalled()
        go_on.release()
        ticked.acquire()
        now += 0.9
        assert not preparation.stalled(), "a piece was done since the last look"
    now += 0.9
    assert not preparation.stalled()
    now += 0.9
    assert preparation.stalled()
    go_on.release()
    assert preparation.wait(20)
    with pytest.raises(ValueError, match="no such file"):
        preparation.result()
