"""Pause, resume, retry and release: the client's calls and the commands, over a real API."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from api_kit import KNN, PRETRAIN
from sqlalchemy import func
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from service.client.api import Client
from service.client.connection import ApiError
from service.command import app
from service.database.tables import Job, Metric, Node, Slot, Watermark


@pytest.fixture
def barlow(server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("BARLOW_URL", server)
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def named(client: Client) -> Callable[[str], uuid.UUID]:
    return lambda name: client.submit_job({**PRETRAIN, "name": name}).id


def fails(session: Session, job_id: uuid.UUID) -> None:
    session.get_one(Job, job_id).state = "failed"
    session.commit()


def test_the_client_pauses_resumes_and_retries(client: Client, named: Callable[[str], uuid.UUID]) -> None:
    job_id = named("typed")
    assert client.pause(job_id).state == "paused"
    assert client.resume(job_id).state == "queued"
    with pytest.raises(ApiError, match="a job that is queued cannot be asked to retry; it allows cancel, pause") as no:
        client.retry(job_id)
    assert no.value.problem is not None
    assert no.value.problem.legal_verbs == ["cancel", "pause"]
    client.cancel(job_id)
    once = client.retry(job_id, key="one")
    assert (once.retry_of, once.name) == (job_id, "typed-retry1")
    assert client.retry(job_id, key="one").id == once.id
    assert client.retry(job_id).id != once.id


def test_pause_show_resume(barlow: Callable[..., Result], named: Callable[[str], uuid.UUID]) -> None:
    job_id = named("told")
    assert barlow("pause", "told").output == "told  paused by anonymous\n"
    shown = barlow("show", "told").output
    assert shown.count("paused by anonymous") == 1
    assert "barlow cancel, barlow resume" in shown
    assert barlow("jobs", "--state", "paused").output.count(str(job_id)) == 1
    unrecorded = barlow("rebuild-mlflow", "told")
    assert (unrecorded.exit_code, "was never recorded for MLflow" in unrecorded.stderr) == (1, True)
    assert barlow("resume", "told").output == "told  queued\n"
    refused = barlow("resume", "told")
    assert refused.exit_code == 1
    assert "a job that is queued cannot be asked to resume; it allows cancel, pause" in refused.stderr


def test_every_mlflow_run_is_made_again_whatever_was_never_recorded(
    barlow: Callable[..., Result],
    named: Callable[[str], uuid.UUID],
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.client.api._LONGEST_PAGE", 2)
    recorded = {name: named(name) for name in ("first", "third", "fifth")}
    for name in ("second", "fourth"):
        named(name)
    for job_id in recorded.values():
        session.add(Watermark(job_id=job_id, target="mlflow", position={}, complete=True))
    session.commit()
    done = barlow("rebuild-mlflow", "--all")
    assert done.exit_code == 0
    said = dict(line.split("  ") for line in done.output.splitlines())  # of other tests' jobs, too
    assert {said[f"default/{name}"] for name in recorded} == {"its MLflow run is made again"}
    assert {said[f"default/{name}"] for name in ("second", "fourth")} == {"was never recorded"}
    for wrong in ((), ("first", "--all")):
        refused = barlow("rebuild-mlflow", *wrong)
        assert (refused.exit_code, "name one or more jobs, or give --all" in refused.stderr) == (2, True)


def test_a_watch_ends_when_a_job_is_paused_and_says_how_to_go_on(
    barlow: Callable[..., Result], client: Client, named: Callable[[str], uuid.UUID]
) -> None:
    client.submit_job({**PRETRAIN, "name": "held"})
    waits = {**KNN, "name": "judges-held", "backbone_from": {"job": "held"}}
    client.submit_job(waits)
    client.submit_job({**PRETRAIN, "name": "last", "run": {"after": ["judges-held"]}})
    pauser = threading.Timer(1.5, client.pause, [client.find_job("held")])
    pauser.start()
    done = barlow("watch", "held", "judges-held", "last")
    pauser.join()
    assert done.exit_code == 1
    assert f"`barlow resume {client.find_job('held')}` has it go on" in done.output
    assert "judges-held: waits for job held" in done.output


def test_retry_makes_a_job_and_looks_on(barlow: Callable[..., Result], client: Client, session: Session) -> None:
    job_id = client.submit_job({**PRETRAIN, "name": "again"}).id
    fails(session, job_id)
    assert "default/again-retry1" in barlow("retry", "again").output
    shown = barlow("show", "again").output
    assert str(client.find_job("again-retry1")) in shown
    assert str(job_id) in barlow("show", "again-retry1").output
    client.cancel(client.find_job("again-retry1"))

    def cancel_the_new_one() -> None:
        while not (found := client.jobs(match="again-retry2").items):
            time.sleep(0.1)
        client.cancel(found[0].id)

    canceller = threading.Thread(target=cancel_the_new_one)
    canceller.start()
    done = barlow("retry", "again-retry1", "--watch")
    canceller.join()
    assert done.exit_code == 1
    assert "again-retry2: cancelled by anonymous" in done.output


def test_an_evaluation_shows_its_numbers_once(barlow: Callable[..., Result], client: Client, session: Session) -> None:
    for spec, name in (({**KNN, "backbone_from": {"pixels": True}}, "judged"), (PRETRAIN, "trained")):
        job_id = client.submit_job({**spec, "name": name}).id
        session.get_one(Job, job_id).result = {"top1": {"last": 12.345}}
        session.add(Metric(job_id=job_id, key="knn_top1", step=1, value=12.345, at=func.now(), attempt=1))
        session.commit()
    assert barlow("show", "judged").output.count("12.345") == 1
    assert "knn_top1" in barlow("show", "trained").output


def test_a_slot_is_released_by_hand(barlow: Callable[..., Result], session: Session) -> None:
    node = Node(
        name="gpu 1", instance=uuid.uuid4(), versions={}, data_sets={}, cores=2, memory_bytes=2**30,
        draining_at=datetime.now(UTC),
    )  # fmt: skip
    session.add(node)
    session.flush()
    facts = {"kind": "cpu", "memory_bytes": 2**30, "quarantined_at": datetime.now(UTC)}
    session.add(Slot(node=node.name, index=3, device_uuid="device", **facts))
    session.commit()
    listed = barlow("nodes").output
    assert "is to leave since" in listed
    assert "in quarantine since" in listed
    assert "barlow release 'gpu 1' 3" in listed
    assert barlow("release", node.name, "3").output == "slot 3 of gpu 1: free\n"
    again = barlow("release", node.name, "3")
    assert (again.exit_code, "it is free already" in again.stderr) == (1, True)
    assert "there is no slot 9" in barlow("release", node.name, "9").stderr
