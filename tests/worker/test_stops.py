"""Cancel, pause, resume and preempt in every state of an attempt: real trainers, no broker anywhere."""

import json
import uuid
from typing import Any

import pytest
from sqlalchemy import text
from worker_host import Host, small_pretraining

from barlow_lab.journal import read_events
from barlow_lab.run_folder import run_folder
from service.ledger.states import AttemptOutcome

LONG = small_pretraining(epochs=5000, run={"preemptible": True, "checkpoint": {"every_steps": 1}})
"""Writes a checkpoint after every step, so that most requests come while one is written."""


@pytest.mark.faults
def test_a_paused_job_resumes_and_a_withdrawn_pause_costs_an_attempt_at_most(host: Host) -> None:
    job_id = host.post(LONG)
    host.wait_for_step(job_id, 3)
    host.pause(job_id)
    host.wait(lambda: host.job(job_id).state == "paused")
    assert all(slot.attempt_id is None for slot in host.slots("host-1"))
    assert _reason(host, job_id, 1) == "pause"
    stopped_at = _last(host, job_id, 1, "stopped")["step"]
    assert _last(host, job_id, 1, "checkpoint")["step"] == stopped_at

    host.resume(job_id)
    assert host.job(job_id).state == "queued"
    host.wait(lambda: _started(host, job_id, 2) is not None)
    assert _started(host, job_id, 2) == stopped_at
    host.pause(job_id)
    host.wait(lambda: host.attempt(job_id).state == "stopping")
    host.resume(job_id)  # the trainer obeys already
    host.wait(lambda: len(host.attempts_of(job_id)) == 3)
    assert host.kinds(job_id).count("paused") == 1
    assert host.job(job_id).restarts == 0

    host.wait(lambda: _started(host, job_id, 3) is not None)
    host.pause(job_id)
    host.wait(lambda: host.attempt(job_id).state == "stopping")
    host.cancel(job_id)
    assert host.finish(job_id).state == "cancelled"
    assert [attempt.outcome for attempt in host.attempts_of(job_id)] == ["stopped"] * 3


def test_a_preempted_job_is_queued_again_unless_it_is_cancelled_meanwhile(host: Host) -> None:
    job_id = host.post(LONG)
    host.wait_for_step(job_id, 1)
    larger = host.preempt(job_id)
    host.wait(lambda: host.attempt(job_id).outcome is not None)
    host.cancel(larger)
    assert _reason(host, job_id, 1) == "preempt"
    assert host.kinds(job_id).count("requeued") == 1
    assert host.job(job_id).restarts == 0
    host.wait(lambda: _started(host, job_id, 2) is not None)
    assert _started(host, job_id, 2) == _last(host, job_id, 1, "stopped")["step"]
    host.cancel(host.preempt(job_id))
    host.cancel(job_id)
    assert host.finish(job_id).state == "cancelled"
    assert len(host.attempts_of(job_id)) == 2


def test_a_pause_before_the_trainer_s_first_word_is_obeyed_and_the_job_ends_later(host: Host) -> None:
    job_id = host.post(small_pretraining(epochs=1))
    log = host.folder(job_id) / "trainer.log"
    host.wait(log.exists)  # the ranks are there, and import torch
    host.pause(job_id)
    host.wait(lambda: host.job(job_id).state == "paused")
    assert host.attempt(job_id).outcome == "stopped"
    host.resume(job_id)
    assert host.finish(job_id).state == "succeeded"
    assert {step for key, step in host.points(job_id) if key == "loss"} == set(range(1, 8))


def test_what_is_asked_while_inputs_are_resolved_is_obeyed_before_anything_starts(host: Host) -> None:
    source = host.post(small_pretraining(), "pretrain")
    attempt = host.start(source)
    host.leave_outcome(attempt, AttemptOutcome.OK)
    with host.sessions.begin() as session:
        assert host.complete(session, attempt, actor="test")
    (run_folder(host.settings.runs_dir, source) / "backbone" / "config.json").write_text('{"sha256": "its tensors"}')
    knn = {"kind": "knn", "data": {"name": "digits"}, "backbone_from": {"job": "pretrain"}}
    cancelled, paused = host.post(knn, "cancelled", source=source), host.post(knn, "paused", source=source)
    host.node._janitor.stop()  # it would wait for the table with a job's row in its hand, and the pause for the row
    with host.engine.begin() as connection:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text("LOCK TABLE checkpoints IN ACCESS EXCLUSIVE MODE"))
        host.wait(lambda: {host.job(job_id).state for job_id in (cancelled, paused)} == {"running"})
        host.pause(cancelled)
        host.cancel(cancelled)
        host.pause(paused)
        heard = [run for run, _ in host.node._runs.values()]
        host.wait(lambda: sorted(run._lease.stop or "" for run in heard) == ["cancel", "pause"])
    assert host.finish(cancelled).state == "cancelled"
    host.wait(lambda: host.job(paused).state == "paused")
    for job_id in (cancelled, paused):
        assert [attempt.outcome for attempt in host.attempts_of(job_id)] == ["stopped"]
        assert not (host.folder(job_id) / "trainer.log").exists()


def test_a_cancel_that_comes_when_the_trainer_has_finished_changes_nothing(host: Host) -> None:
    job_id = host.post(small_pretraining(epochs=1))
    outcome = host.folder(job_id) / "outcome.json"
    host.wait(lambda: host.job(job_id).state == "running")
    with host.held_back(job_id):
        host.wait(outcome.exists)
        host.cancel(job_id)
    job = host.finish(job_id)
    assert json.loads(outcome.read_text())["outcome"] == "ok"
    assert (job.state, job.result is not None) == ("succeeded", True)


def _reason(host: Host, job_id: uuid.UUID, number: int) -> str:
    return str(json.loads((host.folder(job_id, number) / "control.json").read_text())["stop"])


def _last(host: Host, job_id: uuid.UUID, number: int, kind: str) -> dict[str, Any]:
    journal = host.folder(job_id, number) / "journal.jsonl"
    event = [event for event in read_events(journal) if event.kind == kind][-1]
    return {**event.data, "step": event.step}


def _started(host: Host, job_id: uuid.UUID, number: int) -> int | None:
    """The step from which an attempt goes on, once it does."""
    journal = host.folder(job_id, number) / "journal.jsonl"
    steps = [event.data["resume_step"] for event in read_events(journal) if event.kind == "started"]
    return steps[0] if steps else None
