"""A worker that dies or freezes: what its trainers had finished stands, what they had not is run again."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab
from sqlalchemy import select
from worker_host import small_pretraining
from worker_process import NODE, Worker

from barlow_lab.run_folder import attempt_folder, run_folder
from service.database.tables import Attempt, Checkpoint, Watermark
from service.ledger.states import AttemptOutcome
from service.settings import Settings
from worker.attempt_outcome import ending
from worker.process import marked

SHORT = {"poll_seconds": 0.5, "lease_seconds": 4.0}


@pytest.fixture
def worker(database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    worker = Worker(database, tmp_path, **SHORT)
    worker.registered()
    yield worker
    worker.end()


def _damage_nothing(lab: Lab, attempt: Attempt, folder: Path) -> None:
    pass


def _foreign_token(lab: Lab, attempt: Attempt, folder: Path) -> None:
    said = (folder / "outcome.json").read_text()
    (folder / "outcome.json").write_text(said.replace(str(attempt.token), str(attempt.id)))


def _torn(lab: Lab, attempt: Attempt, folder: Path) -> None:
    (folder / "outcome.json").write_text((folder / "outcome.json").read_text()[:-9])


def _not_an_object(lab: Lab, attempt: Attempt, folder: Path) -> None:
    (folder / "outcome.json").write_text("[]")


def _of_another_shape(**changed: Any) -> Callable[[Lab, Attempt, Path], None]:
    def change(lab: Lab, attempt: Attempt, folder: Path) -> None:
        said = json.loads((folder / "outcome.json").read_text())
        (folder / "outcome.json").write_text(json.dumps(said | changed))

    return change


_late = _of_another_shape(step="seven")
"""Noticed when the backbone is published already; that of the next attempt takes its place."""


def _unpublishable(lab: Lab, attempt: Attempt, folder: Path) -> None:
    (run_folder(lab.settings.runs_dir, attempt.job_id) / "backbone").mkdir()
    (folder / "backbone-replaced").mkdir()
    (folder / "backbone-replaced" / "file").touch()


@pytest.mark.parametrize(
    ("damage", "state", "outcome"),
    [
        (_damage_nothing, "succeeded", AttemptOutcome.OK),
        (_foreign_token, "queued", AttemptOutcome.LOST),
        (_torn, "queued", AttemptOutcome.LOST),
        (_not_an_object, "queued", AttemptOutcome.LOST),
        (_late, "queued", AttemptOutcome.LOST),
        (_of_another_shape(backbone=3), "queued", AttemptOutcome.LOST),
        (_of_another_shape(message={}), "queued", AttemptOutcome.LOST),
        (_unpublishable, "queued", AttemptOutcome.LOST),
    ],
)
@pytest.mark.parametrize("by", ["the successor", "the scheduler"])
def test_only_a_whole_end_of_ones_own_that_can_be_published_completes_an_attempt(
    lab: Lab, damage, state: str, outcome: AttemptOutcome, by: str
) -> None:
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    lab.leave_outcome(attempt, AttemptOutcome.OK)
    damage(lab, attempt, attempt_folder(run_folder(lab.settings.runs_dir, job_id), 1))
    if by == "the scheduler":
        lab.expire(attempt)
        lab.reap()
    else:
        lab.unseen("gpu-1")
        lab.instances.clear()
        lab.node()
    assert (lab.job(job_id).state, lab.attempt(job_id).outcome) == (state, outcome)
    published = run_folder(lab.settings.runs_dir, job_id) / "backbone" / "model.safetensors"
    assert published.exists() == (state == "succeeded" or damage is _late)


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("lease", AttemptOutcome.LOST),
        ("drain", AttemptOutcome.DRAINED),
        ("preempt", AttemptOutcome.STOPPED),
        ("signal", AttemptOutcome.STOPPED),
        (None, AttemptOutcome.STOPPED),  # of a trainer that wrote none
    ],
)
def test_a_stop_is_called_the_same_by_the_scheduler_as_by_the_worker(
    lab: Lab, reason: str | None, outcome: AttemptOutcome
) -> None:
    """Which of them comes first after a database that was away is chance."""
    lab.node()
    job_id = lab.submit()
    attempt = lab.start(job_id)
    lab.leave_outcome(attempt, AttemptOutcome.STOPPED, reason=reason)
    lab.expire(attempt)
    lab.reap()
    assert (lab.job(job_id).state, lab.attempt(job_id).outcome) == ("queued", outcome)
    ended = ending({**_stopped(), "reason": None}, [0, 0], reason, signalled=False, stall_seconds=5)
    assert (ended.outcome, ended.message) == (outcome, lab.attempt(job_id).message)


def _stopped() -> dict[str, Any]:
    return {"outcome": "stopped", "message": "said so", "result": None, "traceback": None, "step": 7, "backbone": None}


@pytest.mark.parametrize("by", ["the successor", "the scheduler"])
def test_an_attempt_whose_worker_died_after_outcome_json_is_completed_not_rerun(worker: Worker, by: str) -> None:
    host = worker.host
    job_id = host.post(small_pretraining(epochs=1))
    host.place()
    worker.until(lambda: host.job(job_id).state == "running")
    with host.held_back(job_id):
        worker.until((host.folder(job_id) / "outcome.json").exists)
        worker.processes[0].kill()
        worker.processes[0].wait()
    if by == "the scheduler":
        host.lose(host.attempt(job_id))
        assert host.job(job_id).state == "succeeded"
        assert host.slots(NODE)[0].quarantined_at is not None, "nobody has looked there"
    worker.start()

    def recorded() -> bool:
        with host.sessions() as session:
            return all(session.scalars(select(Watermark.complete).where(Watermark.job_id == job_id)))

    worker.until(lambda: host.job(job_id).state == "succeeded" and recorded())
    worker.until(lambda: all(slot.quarantined_at is None for slot in host.slots(NODE)))
    assert all(slot.attempt_id is None for slot in host.slots(NODE))
    job = host.job(job_id)
    assert job.result is not None
    assert [attempt.outcome for attempt in host.attempts_of(job_id)] == ["ok"]
    assert {step for key, step in host.points(job_id) if key == "loss"} == set(range(1, 8))
    with host.sessions() as session:
        rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id)).all()
    assert {(row.step, row.kind) for row in rows} == {(7, "last"), (7, "backbone")}
    assert (run_folder(host.settings.runs_dir, job_id) / "backbone" / "model.safetensors").is_file()
    assert worker.drain(worker.processes[1]) == 0
    host.check()


@pytest.mark.faults
def test_a_job_without_a_worker_is_paused_and_goes_on_with_the_next_worker(
    worker: Worker,
) -> None:
    host = worker.host
    job_id = host.post(small_pretraining(epochs=5000, run={"checkpoint": {"every_steps": 1}}))
    host.place()
    worker.until(lambda: any((host.folder(job_id) / "checkpoints").glob("step-*")))
    attempt = host.attempt(job_id)
    assert marked(attempt.id)
    worker.processes[0].kill()
    worker.processes[0].wait()
    worker.until(lambda: not marked(attempt.id))
    host.pause(job_id)
    host.lose(attempt)
    assert (host.job(job_id).state, host.attempt(job_id).outcome) == ("paused", "lost")
    host.resume(job_id)
    worker.start()
    worker.until(lambda: all(slot.quarantined_at is None for slot in host.slots(NODE)))
    worker.until(lambda: host.place() or host.job(job_id).state == "running")  # its recorder may be at the job now
    worker.until(lambda: "attempt_resumed" in host.kinds(job_id))
    assert host.job(job_id).restarts == 0
    host.cancel(job_id)
    worker.until(lambda: host.job(job_id).state == "cancelled")
    assert worker.drain(worker.processes[1]) == 0
    host.check()


@pytest.mark.faults
def test_a_worker_frozen_beyond_its_lease_leaves_no_ranks_and_works_on_if_it_may(
    worker: Worker,
) -> None:
    host, first = worker.host, worker.processes[0]
    job_id = host.post(small_pretraining(epochs=5000))
    host.place()
    worker.until(lambda: len(host.points(job_id)) > 0)
    lost = host.attempt(job_id)
    os.kill(first.pid, signal.SIGSTOP)
    worker.until(lambda: not marked(lost.id))
    log = (host.folder(job_id) / "trainer.log").read_text
    host.lose(lost)
    events = len(host.events(job_id))
    assert (host.job(job_id).state, host.attempt(job_id).outcome) == ("queued", "lost")

    os.kill(first.pid, signal.SIGCONT)
    worker.until(lambda: f"attempt 1 of job {job_id} is not ours any more" in worker.log.read_text())
    worker.until(lambda: "ending now: the lease of this attempt was not renewed" in log())
    worker.until(lambda: all(slot.quarantined_at is None for slot in host.slots(NODE)))
    assert len(host.events(job_id)) == events
    worker.until(lambda: host.place() or host.job(job_id).state == "running")
    assert first.poll() is None

    os.kill(first.pid, signal.SIGSTOP)
    second = worker.start()
    worker.until(lambda: host.attempt(job_id).outcome == "lost")
    host.cancel(job_id)
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(60) == 1
    assert f"another worker took the node name {NODE}" in worker.log.read_text()
    worker.until(lambda: all(slot.quarantined_at is None for slot in host.slots(NODE)))
    assert worker.drain(second) == 0
    assert host.job(job_id).restarts == 0
    host.check()
