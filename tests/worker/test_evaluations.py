"""Evaluations that train, run by a worker: stopped they write a checkpoint and go on; those that do not start over."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from worker_host import Host

from barlow_lab.journal import read_events
from service.database.tables import Checkpoint

IMAGES = {"size": 16, "resize": 16}
DIGITS = {"data": {"name": "digits", "limit": 448}, "images": IMAGES, "batch_size": 64}
UNTRAINED = {"backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}
LINEAR: dict[str, Any] = {"kind": "linear", **DIGITS, **UNTRAINED}
SEMI: dict[str, Any] = {"kind": "semi_supervised", **DIGITS, **UNTRAINED, "labels": {"percent": 50}}


def steps_told(host: Host, job_id: UUID, key: str) -> list[int]:
    return sorted(step for name, step in host.points(job_id) if name == key)


def resumed_from(host: Host, job_id: UUID, number: int) -> list[int]:
    """What the `started` events of an attempt say."""
    journal = host.folder(job_id, number) / "journal.jsonl"
    return [event.data["resume_step"] for event in read_events(journal) if event.kind == "started"]


def checkpoints(host: Host, job_id: UUID) -> list[Checkpoint]:
    with Session(host.engine) as session:
        return list(session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.id)))


@pytest.mark.faults
@pytest.mark.parametrize("spec", [LINEAR, SEMI], ids=["linear", "semi_supervised"])
def test_an_evaluation_that_trains_goes_on_from_its_checkpoint_after_a_pause(host: Host, spec: dict[str, Any]) -> None:
    run = {"record": {"metrics_every_steps": 1}, "checkpoint": {"every_epochs": 10_000}}
    job_id = host.post({**spec, "epochs": 200, "run": run})
    loss = f"{spec['kind']}_loss"
    host.wait(lambda: len(steps_told(host, job_id, loss)) > 3)
    host.pause(job_id)
    host.wait(lambda: host.job(job_id).state == "paused")
    (left,) = checkpoints(host, job_id)
    host.resume(job_id)
    host.wait(lambda: len(steps_told(host, job_id, loss)) > left.step + 2)
    assert resumed_from(host, job_id, 1) == [0]
    assert resumed_from(host, job_id, 2) == [left.step]
    told = steps_told(host, job_id, loss)
    assert told == list(range(1, told[-1] + 1)), "every step once"
    host.cancel(job_id)
    assert host.finish(job_id).state == "cancelled"
    retried = host.retry(job_id)
    newest = checkpoints(host, job_id)[-1].step
    assert newest > left.step, "a cancelled one leaves one, too"
    host.wait(lambda: len(steps_told(host, retried, loss)) > 1)
    assert resumed_from(host, retried, 1) == [newest]
    host.cancel(retried)
    assert host.finish(retried).state == "cancelled"


def test_an_evaluation_of_frozen_features_starts_over_and_ends_with_its_scores(host: Host) -> None:
    cached = {**LINEAR, "protocol": "cached-features", "epochs": 3}
    job_id = host.post(cached)
    host.wait(lambda: (host.folder(job_id) / "trainer.log").exists())
    host.pause(job_id)
    host.wait(lambda: host.job(job_id).state == "paused")
    host.resume(job_id)
    done = host.finish(job_id)
    assert done.state == "succeeded", done.error
    assert checkpoints(host, job_id) == []
    assert resumed_from(host, job_id, 2) == [0]
    assert done.result is not None
    assert (done.result["protocol"], done.result["headline"]) == ("linear-cached-features/1", "top1")
    top1 = done.result["scores"]["top1"]["last"]
    assert host.points(job_id)["linear_top1", 3] == pytest.approx(top1)
