"""MLflow and Postgres fail in every way while jobs are recorded: all arrives, once."""

import itertools
import os
import secrets
import signal
import time
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from journals import RecordedJob
from lab import Lab
from pydantic import SecretStr
from recorded import assert_exported, export, exporter, in_mlflow, in_postgres, record, runs
from rights import OTHER, needs_root, thief
from running_stack import wait_until
from unreliable import Unreliable, unreliable
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from service.database import migrate
from service.local.servers import Mlflow, Postgres
from service.settings import Settings
from worker.recorder import mlflow_run
from worker.recorder.loops import Recorder
from worker.recorder.mlflow_run import make_client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_run, "SMALL_CALL_SECONDS", 2)


def _ended(lab: Lab, database: Settings, name: str = "ended", weights: bytes = b"weights") -> RecordedJob:
    job = RecordedJob(lab, database, name)
    job.started()
    job.steps(1, 8)
    job.checkpoint(8)
    job.correlation(8)
    job.succeed()
    (job.run / "backbone" / "model.safetensors").write_bytes(weights)
    record(job)
    return job


def _fail_at(behind: Unreliable, number: int, fault: str) -> None:
    left = itertools.count(1)
    behind.choose = lambda method, path: fault if next(left) == number else None  # type: ignore[return-value]


@needs_root
def test_another_account_that_has_taken_its_port_is_sent_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HTTPConnectionPool, "ConnectionCls", HTTPConnection)
    with thief() as other:
        client = make_client(f"http://127.0.0.1:{other.port}", "secret", same_account=True)
        with pytest.raises(Exception, match=f"is taken by another account \\(user id {OTHER}\\)"):
            client.search_experiments()
        assert other.heard() == set()


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["refused", "lost answer"])
def test_any_one_request_may_fail(lab: Lab, database: Settings, mlflow: Mlflow, fault: str) -> None:
    real = make_client(mlflow.url, mlflow.token)
    with unreliable(mlflow.url) as (url, behind):
        client = make_client(url, mlflow.token)
        for number in itertools.count(1):
            lab.node()  # a slow machine takes longer than a lease for all of them
            job = _ended(lab, database, f"failed-at-{number}")
            _fail_at(behind, number, fault)
            try:
                export(job, client)
            except Exception:
                export(job, client)
            else:
                break
            assert_exported(job, real)
    assert number > 12, "an export makes more requests than this"


def test_a_run_made_behind_a_lost_answer_or_by_another_exporter_is_the_only_one(
    lab: Lab, database: Settings, mlflow: Mlflow
) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = _ended(lab, database)
    export(_ended(lab, database, "first"), client)  # makes the experiment
    experiment = client.get_experiment_by_name(f"lab-{lab.engine.url.database}").experiment_id
    tags = {"barlow.job_id": str(job.id)}
    ghosts = [client.create_run(experiment, tags=tags).info.run_id for _ in range(3)]
    exporter(job, client).export(job.id)
    kept = job.row().mlflow_run_id
    assert kept in ghosts
    assert runs(job, client) == [kept]
    client.create_run(experiment, tags=tags)
    export(job, client)
    assert job.row().mlflow_run_id == kept
    assert_exported(job, client)


def test_a_large_file_is_waited_for_by_its_size_and_not_sent_again(
    lab: Lab, database: Settings, mlflow: Mlflow, impatient: None
) -> None:
    job = _ended(lab, database, weights=b"w" * (5 << 20))
    with unreliable(mlflow.url, slow_seconds=4) as (url, behind):
        client = make_client(url, mlflow.token)
        behind.choose = lambda method, path: "slow answer" if path.endswith("model.safetensors") else None
        export(job, client)  # 2 s of patience, and 5 for the size
        assert_exported(job, make_client(mlflow.url, mlflow.token))
        slower = _ended(lab, database, "slower", weights=b"w" * (1 << 20))
        slow = exporter(slower, make_client(url, mlflow.token))
        slow.export(slower.id)
        with pytest.raises(Exception, match="timeout"):
            slow.upload(slower.id)  # 3 s are not enough, and yet it was stored
        slow.upload(slower.id)
        assert_exported(slower, make_client(mlflow.url, mlflow.token))
    assert sum(request.startswith("PUT") and "model.safetensors" in request for request in behind.requests) == 2


def _impatient(database: Settings, url: str, token: str) -> Settings:
    told = {"mlflow_url": url, "mlflow_token": SecretStr(token), "recorder_seconds": 0.1}
    return database.model_copy(update=told)


def test_an_upload_that_hangs_keeps_no_other_job_waiting(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    job = _ended(lab, database)
    with unreliable(mlflow.url, slow_seconds=9) as (url, behind):
        behind.choose = lambda method, path: "slow answer" if "model.safetensors" in path else None
        recorder = Recorder(_impatient(database, url, mlflow.token), lab.engine)
        recorder.start()
        try:
            wait_until(lambda: any("model.safetensors" in request for request in behind.requests), 60)
            other = RecordedJob(lab, database, "other")
            other.started()
            other.steps(1, 3)
            other.checkpoint(3)
            wait_until(lambda: other.watermark("mlflow").position.get("points") == 6, 60)
            assert not job.watermark("mlflow").complete
            wait_until(lambda: job.watermark("mlflow").complete, 60)
        finally:
            recorder.stop()


def test_mlflow_frozen_refusing_and_killed_in_the_middle(
    lab: Lab, database: Settings, postgres: Postgres, tmp_path: Path, impatient: None
) -> None:
    name = f"mlflow_{uuid4().hex}"
    postgres.create_database(name)
    (tmp_path / "own").mkdir()
    server = Mlflow(tmp_path / "own", postgres.url(name), tmp_path / "own.log", "r" * 40)
    server.start()
    port = server.port
    recorder = Recorder(_impatient(database, server.url, server.token), lab.engine)
    recorder.start()
    try:
        job = RecordedJob(lab, database)
        job.started()

        def go_on(first: int) -> None:
            job.steps(first, first + 9)
            job.checkpoint(first + 9)
            wait_until(lambda: len(job.points()) == 2 * (first + 9), 60)

        go_on(1)
        wait_until(lambda: job.watermark("mlflow").position.get("points") == 20, 60)
        parent = psutil.Process(server.child.pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        go_on(11)
        time.sleep(4)  # one call waits in vain
        for process in processes:
            process.send_signal(signal.SIGCONT)
        wait_until(lambda: job.watermark("mlflow").position.get("points") == 40, 90)
        for process in processes:
            process.kill()
        go_on(21)
        job.succeed()
        wait_until(lambda: job.watermark("postgres").complete, 60)
        server.start(port)
        wait_until(lambda: job.watermark("mlflow").complete, 120)
        assert_exported(job, make_client(server.url, server.token))
    finally:
        recorder.stop()
        server.stop()
        postgres.drop_database(name)


def test_two_workers_record_while_postgres_is_killed_and_comes_back(mlflow: Mlflow, tmp_path: Path) -> None:
    server = Postgres(tmp_path, secrets.token_urlsafe(16), tmp_path / "postgres.log")
    server.start()
    port = server.port
    server.create_database("barlow")
    settings = Settings(
        database_url=server.url("barlow"),
        runs_dir=tmp_path / "runs",
        mlflow_url=mlflow.url,
        mlflow_token=mlflow.token,
        recorder_seconds=0.1,
    )
    migrate.upgrade(settings)
    labs = [Lab(settings), Lab(settings)]
    recorders = [Recorder(settings, each.engine) for each in labs]
    try:
        labs[0].node()
        job = RecordedJob(labs[0], settings, f"twice-{uuid4().hex}")
        for recorder in recorders:
            recorder.start()
        job.started()
        for first in range(1, 60, 10):
            job.steps(first, first + 9)
            job.journal.append("warning", step=first, message="counted by its event")
            job.checkpoint(first + 9)
            if first in (21, 41):
                os.killpg(server.child.pid, signal.SIGKILL)
                job.steps(first, first)  # the trainer goes on; a second line of a step counts instead of the first
                time.sleep(1)
                server.start(port)
            time.sleep(0.5)
        job.succeed()
        wait_until(lambda: job.watermark("mlflow").complete, 120)
        assert len(job.points()) == 120
        assert labs[0].kinds(job.id).count("warning") == 6
        assert in_mlflow(job, make_client(mlflow.url, mlflow.token)) == in_postgres(job)
        assert_exported(job, make_client(mlflow.url, mlflow.token))
    finally:
        for recorder in recorders:
            recorder.stop()
        for each in labs:
            each.engine.dispose()
        server.stop()


def test_an_evaluation_does_not_wait_for_a_source_whose_run_directory_is_gone(
    lab: Lab, database: Settings, mlflow: Mlflow
) -> None:
    client = make_client(mlflow.url, mlflow.token)
    source = _ended(lab, database, "source")
    child = RecordedJob(lab, database, "child", source=source.id)
    child.started()
    child.steps(1, 2)
    child.succeed()
    record(child)
    export(child, client)
    assert child.row().mlflow_run_id is None, "the source may be exported any moment"
    source.run.rename(away := source.run.with_name(f"away-{source.id}"))
    export(child, client)
    assert_exported(child, client)
    assert "mlflow.parentRunId" not in client.get_run(child.row().mlflow_run_id).data.tags
    away.rename(source.run)
    export(source, client)
    export(child, client)
    tags = client.get_run(child.row().mlflow_run_id).data.tags
    assert tags["mlflow.parentRunId"] == source.row().mlflow_run_id
    assert_exported(child, client)
