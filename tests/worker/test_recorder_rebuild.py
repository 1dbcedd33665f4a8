"""`:rebuild-mlflow`: a job's MLflow run is made again from Postgres and the run directory."""

import itertools
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from journals import RecordedJob
from lab import Lab
from recorded import (
    Counting,
    Dying,
    Killed,
    Meanwhile,
    assert_exported,
    export,
    exporter,
    in_mlflow,
    in_postgres,
    record,
    runs,
)
from sqlalchemy import delete

from service.database.tables import Watermark
from service.ledger.errors import NotFound
from service.local.agreement import compare
from service.local.servers import Mlflow, Postgres
from service.recording import NothingRecorded, request_rebuild
from service.settings import Settings
from worker.recorder.mlflow_run import make_client


def _rebuild(job: RecordedJob) -> None:
    with job.lab.sessions.begin() as session:
        request_rebuild(session, job.id, actor="test")


def _ended(lab: Lab, database: Settings, name: str = "ended", source: Any = None) -> RecordedJob:
    job = RecordedJob(lab, database, name, source=source)
    job.started()
    job.steps(1, 60)
    job.correlation(4)
    job.checkpoint(60)
    job.succeed()
    record(job)
    return job


def test_a_run_that_was_tampered_with_is_made_again(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = _ended(lab, database)
    export(job, client)
    former = job.row().mlflow_run_id
    client.log_metric(former, "loss", 1.0, step=1000)
    client.create_run(client.get_run(former).info.experiment_id, tags={"barlow.job_id": str(job.id)})
    _rebuild(job)
    assert not job.watermark("mlflow").complete
    assert lab.kinds(job.id)[-1] == "mlflow_rebuild_requested"
    export(job, client)
    assert job.row().mlflow_run_id != former
    assert client.get_run(former).info.lifecycle_stage == "deleted"
    assert_exported(job, client)
    here, name = database.database_url.get_secret_value(), f"lab-{lab.engine.url.database}"
    agreement = compare(here, mlflow.url, name, token=mlflow.token)
    assert agreement.faults == []
    assert agreement.total == 120


def test_a_job_is_rebuilt_while_it_runs_and_while_it_is_being_exported(
    lab: Lab, database: Settings, mlflow: Mlflow
) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 5)
    job.checkpoint(5)
    record(job)

    exporter(job, Meanwhile(client, lambda: _rebuild(job))).export(job.id)
    former = job.row().mlflow_run_id
    goes_on = exporter(job, client)
    goes_on.export(job.id)
    assert job.row().mlflow_run_id != former
    assert in_mlflow(job, client) == in_postgres(job)
    _rebuild(job)
    job.steps(6, 7)
    job.succeed()
    record(job)
    goes_on.export(job.id)
    goes_on.upload(job.id)
    assert_exported(job, client)


def test_many_that_are_rebuilt_look_for_their_experiment_once(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    """And each of them for its runs: before and after the new one is made, and once it is whole."""
    client = make_client(mlflow.url, mlflow.token)
    jobs = [_ended(lab, database, f"ended-{n}") for n in range(2)]
    client.create_experiment(f"of nobody {uuid4()}")  # whose it is can be told by its runs alone
    counting = Counting(client)
    process = exporter(jobs[0], counting)
    for _ in range(2):
        for job in jobs:
            _rebuild(job)
        first, second = [counting.during(process.export, job_id) for job_id in process.pending()]
        assert first["search_experiments"] > 1
        assert first["search_runs"] > 3
        assert (second["search_experiments"], second["search_runs"]) == (1, 3)
    for job in jobs:
        process.upload(job.id)
        assert_exported(job, client)


@pytest.mark.faults
def test_a_rebuild_that_is_killed_at_any_call_is_completed(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = _ended(lab, database)
    export(job, client)
    for calls in itertools.count(1):
        _rebuild(job)
        try:
            export(job, Dying(client, calls, carried_out=calls % 2 == 0))
        except Killed:
            export(job, client)
        else:
            break
        assert_exported(job, client)
    assert calls > 10


def test_everything_is_built_in_an_empty_mlflow(
    lab: Lab, database: Settings, mlflow: Mlflow, postgres: Postgres, tmp_path: Path
) -> None:
    client = make_client(mlflow.url, mlflow.token)
    source = _ended(lab, database, "source")
    export(source, client)
    child = _ended(lab, database, "child", source=source.id)
    export(child, client)
    name = f"mlflow_{uuid4().hex}"
    postgres.create_database(name)
    other = Mlflow(tmp_path / "other", postgres.url(name), tmp_path / "other.log", "r" * 40)
    (tmp_path / "other").mkdir()
    other.start()
    try:
        client = make_client(other.url, other.token)
        _rebuild(child)
        export(child, client)  # before its parent
        _rebuild(source)
        export(source, client)
        assert not child.watermark("mlflow").complete, "its parent's run is another one now"
        export(child, client)
        for job in (source, child):
            assert_exported(job, client)
        tags = client.get_run(child.row().mlflow_run_id).data.tags
        assert tags["mlflow.parentRunId"] == source.row().mlflow_run_id
        assert len(runs(source, client)) == 1
    finally:
        other.stop()
        postgres.drop_database(name)


def test_what_was_never_recorded_cannot_be_rebuilt(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database)
    with lab.sessions.begin() as session:
        session.execute(delete(Watermark).where(Watermark.job_id == job.id, Watermark.target == "mlflow"))
    with pytest.raises(NothingRecorded, match="BARLOW_MLFLOW_URL"):
        _rebuild(job)
    with lab.sessions.begin() as session, pytest.raises(NotFound):
        request_rebuild(session, uuid4(), actor="test")
    assert "mlflow_rebuild_requested" not in lab.kinds(job.id)
