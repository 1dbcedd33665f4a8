"""Postgres rows → a real MLflow server: every point and picture once, whatever is killed."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from journals import RecordedJob
from lab import Lab
from sqlalchemy import select, update

from service.database.tables import Metric, Watermark
from service.ledger.states import JobState, Outcome
from service.local.servers import Mlflow
from service.recording import mlflow_params
from service.settings import Settings
from worker.recorder.export import STATUS
from worker.recorder.loops import Recorder
from worker.recorder.mlflow import MlflowExporter
from worker.recorder.mlflow_run import make_client
from worker.recorder.postgres import PostgresRecorder

Points = dict[str, list[tuple[int, float, int]]]
"""Metric → (step, value, milliseconds) of every point, sorted; a point that stands twice is there twice."""


@pytest.fixture
def lab(database: Settings) -> Iterator[Lab]:
    lab = Lab(database)
    lab.node()
    yield lab
    lab.check()
    lab.engine.dispose()


class Killed(BaseException):
    """The process ends here."""


class Dying:
    """A real client whose process is killed at its n-th call: right after it was carried out, or right before."""

    def __init__(self, client: Any, calls: int, *, carried_out: bool) -> None:
        self._client = client
        self._left = calls
        self._carried_out = carried_out

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._carried_out:
                raise Killed
            answer = getattr(self._client, name)(*given, **named)
            if self._left == 0:
                raise Killed
            return answer

        return call


def _record(job: RecordedJob) -> None:
    PostgresRecorder(job.lab.sessions, job.run.parent).flush(job.id)


def _exporter(job: RecordedJob, client: Any) -> MlflowExporter:
    return MlflowExporter(job.lab.engine, client, job.run.parent)


def _export(job: RecordedJob, client: Any) -> None:
    """Everything there is, by a process that begins with it."""
    exporter = _exporter(job, client)
    exporter.export(job.id)
    exporter.upload(job.id)


def _in_postgres(job: RecordedJob) -> Points:
    found: Points = {}
    with job.lab.sessions() as session:
        for row in session.scalars(select(Metric).where(Metric.job_id == job.id)):
            found.setdefault(row.key, []).append((row.step, row.value, round(row.at.timestamp() * 1000)))
    return {key: sorted(points) for key, points in found.items()}


def _in_mlflow(job: RecordedJob, client: Any) -> Points:
    run_id = job.row().mlflow_run_id
    keys = client.get_run(run_id).data.metrics
    return {key: sorted((m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, key)) for key in keys}


def _runs(job: RecordedJob, client: Any) -> list[str]:
    """The job's runs that are not deleted."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run.info.run_id for run in client.search_runs(experiments, f"tags.`barlow.job_id` = '{job.id}'")]


def _assert_exported(job: RecordedJob, client: Any) -> None:
    """All of an ended job is in MLflow, once."""
    assert job.watermark("mlflow").complete
    assert _runs(job, client) == [job.row().mlflow_run_id]
    assert _in_mlflow(job, client) == _in_postgres(job)
    run = client.get_run(job.row().mlflow_run_id)
    assert run.info.status == STATUS[JobState(job.row().state)]
    assert run.data.params == mlflow_params(job.row().spec)
    files = {file.name for file in (job.run / "backbone").iterdir()} if (job.run / "backbone").exists() else set()
    assert {Path(artifact.path).name for artifact in client.list_artifacts(run.info.run_id, "backbone")} == files
    if job.row().result is not None:
        assert client.download_artifacts(run.info.run_id, "result.json")


def _images(job: RecordedJob, client: Any) -> Counter[tuple[str, str]]:
    """How often each (key, step) stands there, by kind of file."""
    names = [artifact.path for artifact in client.list_artifacts(job.row().mlflow_run_id, "images")]
    return Counter((name.split("+timestamp")[0].removeprefix("images/"), name.rsplit(".", 1)[1]) for name in names)


def test_a_running_job_is_exported_to_its_checkpoint_and_an_ended_one_whole(
    lab: Lab, database: Settings, mlflow: Mlflow
) -> None:
    client = make_client(mlflow.url)
    job = RecordedJob(lab, database)
    exporter = _exporter(job, client)
    job.started()
    job.steps(1, 5)
    job.correlation(5)
    job.checkpoint(5)
    job.steps(6, 9)
    job.correlation(9)
    _record(job)
    exporter.export(job.id)
    assert [step for step, *_ in _in_mlflow(job, client)["loss"]] == [1, 2, 3, 4, 5]
    assert set(_images(job, client).elements()) == {("correlation+step+5", "png"), ("correlation+step+5", "webp")}
    job.again()
    job.started(resume_step=5)
    job.steps(6, 12, value=100.0)
    job.correlation(12)
    job.checkpoint(12)
    job.steps(12, 12, value=200.0)  # a line behind the checkpoint that covers its step replaces the one before it
    job.journal.metrics(12, 1, {"late": 1.0})
    _record(job)
    exporter.export(job.id)
    run = client.get_run(job.row().mlflow_run_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["barlow.attempts"] == "2"
    job.succeed()
    _record(job)
    exporter.export(job.id)
    assert (exporter.pending(), exporter.pending_files()) == ([], [job.id]), "its files keep nobody waiting"
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    exporter.upload(job.id)
    assert job.watermark("mlflow").complete
    assert (exporter.pending(), exporter.pending_files()) == ([], [])
    assert exporter._runs == {}, "nothing is kept of a job that is done"
    assert _in_mlflow(job, client) == _in_postgres(job)
    assert len(_in_mlflow(job, client)["loss"]) == 12
    assert _images(job, client) == {(f"correlation+step+{n}", end): 1 for n in (5, 12) for end in ("png", "webp")}

    run = client.get_run(job.row().mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "recorded"
    assert run.data.params == mlflow_params(job.row().spec)
    assert run.data.params["optimizer.learning_rate"] == "0.001"
    assert run.data.params["projector.widths"] == "[32, 32]"
    assert run.data.tags["barlow.spec_digest"] == job.row().spec_digest
    assert run.data.tags["barlow.node"] == "gpu-1"
    assert run.data.tags["barlow.torch"] == "2"
    finished_at = job.row().finished_at
    assert finished_at is not None
    assert datetime.fromtimestamp(run.info.end_time / 1000).timestamp() == pytest.approx(finished_at.timestamp(), abs=1)
    backbone = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "backbone")}
    assert backbone == {"backbone/model.safetensors", "backbone/config.json"}
    assert json.loads(Path(client.download_artifacts(run.info.run_id, "result.json")).read_text()) == {"loss": 1.5}


@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
def test_an_exporter_that_is_killed_at_any_call_leaves_nothing_twice(
    lab: Lab, database: Settings, mlflow: Mlflow, carried_out: bool
) -> None:
    client = make_client(mlflow.url)
    for calls in itertools.count(1):
        job = RecordedJob(lab, database, f"killed-at-{calls}")
        job.started()
        job.steps(1, 8)
        job.correlation(4)
        job.checkpoint(8)
        job.succeed()
        _record(job)
        try:
            _export(job, Dying(client, calls, carried_out=carried_out))
        except Killed:
            _export(job, client)
        else:
            break
        _assert_exported(job, client)
        assert _images(job, client) == {("correlation+step+4", end): 1 for end in ("png", "webp")}
    assert calls > 10, "an export makes more than ten calls"


def test_a_picture_without_its_thumbnail_is_completed(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url)
    job = RecordedJob(lab, database)
    job.started()
    _record(job)
    _exporter(job, client).export(job.id)
    run_id = job.row().mlflow_run_id
    job.correlation(4)
    picture = job.folder / "correlation" / "correlation+step+4+timestamp+1+some-uuid.png"
    picture.write_bytes((job.folder / "correlation" / "step-00000004.png").read_bytes())
    client.log_artifact(run_id, str(picture), "images")
    job.checkpoint(4)
    _record(job)
    _exporter(job, client).export(job.id)
    assert _images(job, client) == {("correlation+step+4", "png"): 1, ("correlation+step+4", "webp"): 1}


def test_a_damaged_journal_and_a_damaged_picture_hold_up_nothing(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url)
    job = RecordedJob(lab, database)
    job.started()
    job.correlation(4)
    job.correlation(8)
    (job.folder / "correlation" / "step-00000004.png").write_bytes(b"\x89PNG\r\n")
    job.steps(1, 4)
    job.checkpoint(8)
    with (job.folder / "journal.jsonl").open("ab") as file:
        file.write(b"\0" * 64 + b"\n")
    _record(job)
    job.succeed()
    _record(job)
    _export(job, client)
    assert job.watermark("mlflow").complete
    assert _in_mlflow(job, client) == _in_postgres(job)
    assert _images(job, client) == {("correlation+step+8", "png"): 1, ("correlation+step+8", "webp"): 1}
    assert client.get_run(job.row().mlflow_run_id).data.tags["barlow.torch"] == "2"


def test_an_experiment_that_was_deleted_in_mlflow_comes_back(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url)
    job = RecordedJob(lab, database)
    exporter = _exporter(job, client)
    job.started()
    job.steps(1, 5)
    job.checkpoint(5)
    _record(job)
    exporter.export(job.id)
    client.delete_experiment(client.get_run(job.row().mlflow_run_id).info.experiment_id)
    job.steps(6, 7)
    job.checkpoint(7)
    _record(job)
    with pytest.raises(Exception, match="active"):
        exporter.export(job.id)
    exporter.export(job.id)
    assert _in_mlflow(job, client) == _in_postgres(job)


def test_every_label_that_a_spec_may_have_reaches_mlflow(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url)
    labels = {f"team/a.b_c-{n}": "x" * 200 for n in range(48)} | {"empty": "", "unicode": "größer 雪 🙂"}
    job = RecordedJob(lab, database, labels=labels)
    job.started()
    _record(job)
    _exporter(job, client).export(job.id)
    data = client.get_run(job.row().mlflow_run_id).data
    assert {key.removeprefix("label."): value for key, value in data.tags.items() if "label." in key} == labels
    assert {key: data.params[f"run.labels.{key}"] for key in labels} == labels


def test_an_evaluation_is_a_child_of_its_pretraining(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url)
    source = RecordedJob(lab, database, "source")
    source.started()
    _record(source)
    source.succeed()
    child = RecordedJob(lab, database, "child", source=source.id)
    child.started()
    _record(child)
    exporter = _exporter(child, client)
    exporter.export(child.id)
    assert child.row().mlflow_run_id is None, "it waits for its parent's run"
    exporter.export(source.id)
    exporter.export(child.id)
    tags = client.get_run(child.row().mlflow_run_id).data.tags
    assert tags["mlflow.parentRunId"] == source.row().mlflow_run_id
    lab.end(child.attempt, Outcome.DIVERGED, "loss is not a number at step 3")
    _record(child)
    exporter.export(child.id)
    run = client.get_run(child.row().mlflow_run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["barlow.error"] == "loss is not a number at step 3"


def test_a_run_that_is_gone_from_mlflow_is_made_again(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url)
    job = RecordedJob(lab, database)
    exporter = _exporter(job, client)
    job.started()
    job.steps(1, 5)
    job.checkpoint(5)
    _record(job)
    exporter.export(job.id)
    former = job.row().mlflow_run_id
    client.delete_run(former)
    job.steps(6, 7)
    job.checkpoint(7)
    _record(job)
    with pytest.raises(Exception, match="deleted"):
        exporter.export(job.id)
    exporter.export(job.id)
    assert job.row().mlflow_run_id != former
    assert _in_mlflow(job, client) == _in_postgres(job)


def test_mlflow_away_holds_up_nothing_and_gets_everything_later(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    away = database.model_copy(update={"mlflow_url": "http://127.0.0.1:9", "recorder_seconds": 0.1})
    recorder = Recorder(away, lab.engine)
    recorder.start()
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 40)
    job.checkpoint(40)
    done = threading.Event()
    for _ in range(200):
        if done.wait(0.1) or len(job.points()) == 80:
            break
    assert len(job.points()) == 80
    job.succeed()
    recorder.flush(job.id)
    recorder.stop()
    assert job.watermark("postgres").complete
    assert not job.watermark("mlflow").complete
    client = make_client(mlflow.url)
    _exporter(job, client).export(job.id)
    assert _in_mlflow(job, client) == _in_postgres(job)


def test_only_one_exporter_is_at_a_job(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url)
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 30)
    for step in (10, 20, 30):
        job.correlation(step)
    job.checkpoint(30)
    _record(job)
    threads = [threading.Thread(target=_exporter(job, client).export, args=(job.id,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    _exporter(job, client).export(job.id)
    assert _in_mlflow(job, client) == _in_postgres(job)
    assert set(_images(job, client).values()) == {1}
    with lab.sessions.begin() as session:
        session.execute(update(Watermark).where(Watermark.job_id == job.id).values(position={}))
    _exporter(job, client).export(job.id)
    assert _in_mlflow(job, client) == _in_postgres(job), "a watermark that is lost costs time, not truth"
    assert set(_images(job, client).values()) == {1}
