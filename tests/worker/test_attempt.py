"""Attempts from accept to end: real trainers on digits with a tiny backbone, a real database."""

import json
import re
import signal
import threading
import uuid
from typing import Any

import psutil
import pytest
from lab import Lab
from sqlalchemy import select
from worker_host import Host, small_pretraining

from barlow_lab.disk import sha256_of
from barlow_lab.journal import read_events
from barlow_lab.run_folder import run_folder
from service.completion import Ending
from service.database.tables import Checkpoint, Correlation, Image
from service.ledger.states import AttemptOutcome
from service.settings import Settings
from worker import clock, stalls, stopping, supervisor
from worker.attempt import AttemptRun
from worker.process import marked
from worker.recorder.loops import Recorder

KNN = {"kind": "knn", "data": {"name": "digits"}, "images": {"size": 16, "resize": 16}}


def test_a_pretraining_and_its_evaluation_run_to_the_end(host: Host) -> None:
    pretraining = host.post(small_pretraining(resources={"slots": 2}), "pretrain")
    evaluation = host.post({**KNN, "backbone_from": {"job": "pretrain"}}, "knn", source=pretraining)
    job = host.finish(pretraining)
    assert (job.state, job.error) == ("succeeded", None)
    assert job.progress is not None
    points = host.points(pretraining)
    assert {step for key, step in points if key == "loss"} == set(range(1, 15))
    run = run_folder(host.settings.runs_dir, pretraining)
    with host.sessions() as session:
        kept = session.scalars(select(Checkpoint).where(Checkpoint.job_id == pretraining)).all()
        backbone = next(row for row in kept if row.kind == "backbone")
        assert backbone.sha256 == sha256_of(run / "backbone" / "model.safetensors")
        assert {(row.step, row.kind) for row in kept} == {(7, "last"), (14, "last"), (14, "backbone")}
        correlations = session.scalars(select(Correlation).where(Correlation.job_id == pretraining)).all()
        assert correlations
        for row in correlations:
            assert (run / row.file).is_file()
            assert (run / row.image).is_file()
        assert session.scalars(select(Image).where(Image.job_id == pretraining)).all()
    log = (host.folder(pretraining) / "trainer.log").read_text()
    assert "[0] " in log
    assert not any(host.folder(pretraining).glob("backbone*")), "the backbone moved to the run directory"

    judged = host.finish(evaluation)
    assert judged.state == "succeeded"
    assert judged.result is not None
    assert 0 <= judged.result["scores"]["top1"]["last"] <= 100
    assert ("knn_top1", 0) in host.points(evaluation)
    assert all(slot.attempt_id is None for slot in host.slots("host-1"))


@pytest.mark.faults
def test_a_trainer_killed_twice_ends_undisturbed_in_a_retry_with_every_point_once(host: Host) -> None:
    spec = small_pretraining(epochs=12)
    spec["run"] |= {"max_restarts": 1}
    undisturbed = host.post(spec, "undisturbed")
    job_id = host.post(spec, "killed")
    for number, step in ((1, 16), (2, 44)):
        host.wait_for_step(job_id, step)
        pids = [rank["pid"] for rank in _started(host, job_id, number)["ranks"]]
        for pid in pids:
            psutil.Process(pid).send_signal(signal.SIGKILL)
        host.wait(lambda n=number: len(host.attempts_of(job_id)) > n or host.job(job_id).state == "failed")
    assert host.finish(job_id).state == "failed"
    assert [attempt.outcome for attempt in host.attempts_of(job_id)] == ["crashed", "crashed"]
    assert "SIGKILL" in host.attempts_of(job_id)[0].message
    assert host.kinds(job_id).count("attempt_resumed") == 1
    retried = host.retry(job_id)
    judged, expected = host.finish(retried), host.finish(undisturbed)
    assert (judged.state, expected.state) == ("succeeded", "succeeded")
    assert judged.result is not None
    assert expected.result is not None
    assert judged.result["backbone"]["sha256"] == expected.result["backbone"]["sha256"]
    assert _started(host, retried, 1)["resume_step"] >= 42, "the last checkpoint of the job it is a retry of"
    timings = {"images_per_second", "data_seconds", "step_seconds"}
    wanted, found = host.points(undisturbed), host.points(job_id) | host.points(retried)
    assert found.keys() == wanted.keys()
    assert {k: v for k, v in found.items() if k[0] not in timings} == {
        k: v for k, v in wanted.items() if k[0] not in timings
    }


def test_a_cancelled_trainer_writes_a_checkpoint_and_leaves(host: Host) -> None:
    job_id = host.post(small_pretraining(epochs=2000, run={"checkpoint": {"every_epochs": 1000}}))
    host.wait_for_step(job_id, 1)
    host.cancel(job_id)
    job = host.finish(job_id)
    assert job.state == "cancelled"
    assert host.attempts_of(job_id)[0].outcome == "stopped"
    assert json.loads((host.folder(job_id) / "control.json").read_text()) == {"stop": "cancel"}
    with host.sessions() as session:
        assert session.scalars(select(Checkpoint.kind).where(Checkpoint.job_id == job_id)).all() == ["last"]


def test_a_cancel_does_not_wait_for_the_heartbeat(patient_host: Host) -> None:
    host = patient_host
    job_id = host.post(small_pretraining(epochs=5000))
    host.wait_for_step(job_id, 1)
    host.cancel(job_id)
    assert host.finish(job_id).state == "cancelled"
    at = {event.kind: event.at for event in host.events(job_id)}
    assert (at["attempt_stopping"] - at["cancel_requested"]).total_seconds() < 10, "the heartbeat comes every 30 s"


def test_an_attempt_whose_lease_ran_out_before_its_ranks_were_started_starts_none(database: Settings) -> None:
    host = Host(database, heartbeat_seconds=5.0)
    Lab.node(host, "host-1")
    job_id = host.post(small_pretraining())
    attempt = host.start(job_id)
    AttemptRun(
        attempt,
        sessions=host.sessions,
        settings=host.settings,
        recorder=Recorder(host.settings, host.engine),
        threads_per_rank=1,
        sent=clock.now() - host.settings.lease_seconds,
    ).run()
    assert (host.attempt(job_id).outcome, host.job(job_id).state) == ("lost", "queued")
    assert not (host.folder(job_id) / "trainer.log").exists()
    host.check()
    host.engine.dispose()


@pytest.mark.faults
def test_ranks_that_make_no_progress_are_ended_with_their_stacks_in_the_log(host: Host) -> None:
    run = {"stall_seconds": 6, "max_restarts": 0}
    job_id = host.post(small_pretraining(epochs=2000, resources={"slots": 2}, run=run))
    host.wait_for_step(job_id, 1)
    waiting, stopped = (rank["pid"] for rank in _started(host, job_id, 1)["ranks"])
    psutil.Process(stopped).suspend()
    job = host.finish(job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["class"] == "stalled"
    assert "no progress for 6 s" in job.error["message"]
    assert not psutil.pid_exists(waiting)
    assert not psutil.pid_exists(stopped)
    log = (host.folder(job_id) / "trainer.log").read_text()
    assert "[0] Current thread" in log, "faulthandler's words"
    collective = r"\[0\]   File .* in (all_reduce|all_gather|_engine_run_backward)$"
    assert re.search(collective, log, re.MULTILINE), "any of them: where the other rank stopped is by chance"


def test_a_trainer_that_says_nothing_at_its_start_is_ended_and_tried_once_more(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "START_SECONDS", 1.0)
    monkeypatch.setattr(stopping, "STALLED_GRACE_SECONDS", 1.0)
    job_id = host.post(small_pretraining(resources={"slots": 2}, run={"stall_seconds": 1, "max_restarts": 3}))
    for number in (1, 2):
        host.wait(lambda n=number: len(host.attempts_of(job_id)) == n and len(_marked(host, job_id)) == 2)
        for pid in _marked(host, job_id):
            psutil.Process(pid).suspend()
    job = host.finish(job_id)
    assert [attempt.outcome for attempt in host.attempts_of(job_id)] == ["stalled", "stalled"]
    assert job.error is not None
    assert (job.state, job.restarts, job.error["class"]) == ("failed", 1, "stalled")
    assert "no progress for 1 s" in job.error["message"]


@pytest.mark.faults
def test_ranks_that_stay_after_their_last_word_are_ended_and_the_word_stands(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "STALLED_GRACE_SECONDS", 1.0)
    run = {"record": {"metrics_every_steps": 1}, "stall_seconds": 10}
    job_id = host.post(small_pretraining(epochs=1, run=run))
    outcome = host.folder(job_id) / "outcome.json"
    host.wait(lambda: bool(_marked(host, job_id)))
    (rank,) = [psutil.Process(pid) for pid in _marked(host, job_id)]
    while not outcome.exists():
        assert rank.is_running()
    rank.suspend()
    job = host.finish(job_id)
    assert (job.state, host.attempt(job_id).outcome) == ("succeeded", "ok")
    assert not rank.is_running()


def test_a_ghost_stops_its_trainer_and_changes_nothing_and_its_slots_come_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_empty, may_look = supervisor._is_empty, threading.Event()
    monkeypatch.setattr(supervisor, "_is_empty", lambda *slot: may_look.is_set() and is_empty(*slot))
    job_id = host.post(small_pretraining(epochs=5000))
    host.wait_for_step(job_id, 1)
    (rank,) = _started(host, job_id, 1)["ranks"]
    lost = host.attempt(job_id)
    host.lose(lost)
    assert host.attempt(job_id).outcome == "lost"
    assert [slot.quarantined_at is not None for slot in host.slots("host-1")] == [True, False]
    may_look.set()
    host.wait(lambda: not psutil.pid_exists(rank["pid"]))
    host.wait(lambda: all(slot.quarantined_at is None for slot in host.slots("host-1")))
    host.wait(lambda: len(host.attempts_of(job_id)) == 2 and host.job(job_id).state == "running")
    assert host.job(job_id).restarts == 0
    assert not (host.folder(job_id) / "outcome.json").exists()


@pytest.mark.faults
def test_a_backbone_that_cannot_be_published_costs_a_counted_retry(host: Host) -> None:
    job_id = host.post(small_pretraining(epochs=1))
    (run_folder(host.settings.runs_dir, job_id) / "backbone").mkdir(parents=True)
    in_the_way = host.folder(job_id) / "backbone-replaced"
    in_the_way.mkdir(parents=True)
    (in_the_way / "file").touch()
    job = host.finish(job_id)
    assert (job.state, job.restarts) == ("succeeded", 1)
    assert [attempt.outcome for attempt in host.attempts_of(job_id)] == ["crashed", "ok"]
    assert "the worker could not conclude it" in host.attempts_of(job_id)[0].message
    assert (run_folder(host.settings.runs_dir, job_id) / "backbone" / "model.safetensors").is_file()


def test_an_end_in_words_that_postgres_does_not_take_is_told_all_the_same(database: Settings) -> None:
    host = Host(database)
    Lab.node(host, "host-1")
    job_id = host.post(small_pretraining())
    attempt = host.start(job_id)
    folder = host.folder(job_id)
    folder.mkdir(parents=True)
    (folder / "trainer.log").write_bytes(b"[0] \0\xff\n")
    recorder = Recorder(host.settings, host.engine)
    facts: dict[str, Any] = {"sessions": host.sessions, "settings": host.settings, "recorder": recorder}
    run = AttemptRun(attempt, threads_per_rank=1, sent=clock.now(), **facts)
    run._conclude(Ending(AttemptOutcome.BAD_DATA, "cannot read caf\udce9\0.png", traceback="\0"))
    job = host.job(job_id)
    assert (job.state, job.error) == (
        "failed",
        {
            "class": "bad_data",
            "message": r"cannot read caf\udce9\x00.png",
            "log_tail": ["[0] \\x00\ufffd"],
            "traceback": r"\x00",
        },
    )
    host.check()
    host.engine.dispose()


def test_a_missing_input_fails_the_job_with_a_remedy_before_anything_starts(host: Host) -> None:
    pretraining = host.post(small_pretraining(), "pretrain")
    attempt = host.start(pretraining)
    host.end(attempt, AttemptOutcome.OK)
    job_id = host.post({**KNN, "backbone_from": {"job": "pretrain"}}, source=pretraining)
    job = host.finish(job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["class"] == "bad_data"
    assert "has published no backbone; run it again" in job.error["message"]
    assert not (host.folder(job_id) / "trainer.log").exists()


def _started(host: Host, job_id: uuid.UUID, number: int) -> dict[str, Any]:
    journal = host.folder(job_id, number) / "journal.jsonl"
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [event.data for event in read_events(journal) if event.kind == "started"]
        return bool(found)

    host.wait(there)
    return found[0]


def _marked(host: Host, job_id: uuid.UUID) -> list[int]:
    """The processes of a job's newest attempt."""
    return marked(host.attempt(job_id).id) if host.attempts_of(job_id) else []
