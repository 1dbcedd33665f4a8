"""An experiment with seeds, a grid or lists is one run in MLflow, above those of its jobs."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from journals import RecordedJob
from lab import Lab
from pydantic import SecretStr
from recorded import Dying, Killed, assert_exported, export, exporter, record
from running_stack import wait_until
from sqlalchemy.exc import OperationalError
from varied import VariedExperiment
from worker_host import small_pretraining

from barlow_lab.specs import parse_spec
from service.database.tables import Job
from service.ledger import jobs
from service.ledger.states import AttemptOutcome
from service.local.servers import Mlflow
from service.recording import request_rebuild
from service.settings import Settings
from worker.recorder import experiment, mlflow_run
from worker.recorder.loops import Recorder
from worker.recorder.mlflow_run import MlflowRun, make_client


@pytest.fixture
def client(mlflow: Mlflow) -> Any:
    return make_client(mlflow.url, mlflow.token)


def table(varied: VariedExperiment, client: Any) -> list[dict[str, Any]]:
    path = client.download_artifacts(varied.row().mlflow_run_id, "summary.json")
    found = json.loads(Path(path).read_text())
    return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


def page(varied: VariedExperiment, client: Any) -> str | None:
    """What `compare.html` is; None: there is none."""
    run = varied.row().mlflow_run_id
    if "compare.html" not in {artifact.path for artifact in client.list_artifacts(run)}:
        return None
    return Path(client.download_artifacts(run, "compare.html")).read_text()


def assert_said(varied: VariedExperiment, client: Any) -> None:
    """One run says what came of it."""
    above = varied.row().mlflow_run_id
    assert varied.runs(client) == [above]
    assert varied.exporter(client).pending() == []
    assert client.get_run(above).info.status == "FINISHED"
    assert client.get_run(above).data.tags["barlow.states"] == "5 succeeded"
    assert table(varied, client)[0]["loss, mean"] == 10.5
    assert "pretrain, 2 seeds" in (page(varied, client) or "")


def assert_told(varied: VariedExperiment) -> None:
    """The jobs that belong right below its run, and no others, are to look at which that is."""
    above = varied.row().mlflow_run_id
    for name, job in varied.jobs.items():
        assert (job.watermark("mlflow").position.get("parent") == above) != name.startswith("knn"), name


def test_pretrainings_of_several_seeds_are_below_a_run_that_sums_them_up(
    lab: Lab, database: Settings, client: Any
) -> None:
    varied = VariedExperiment(lab, database)
    for job in varied.jobs.values():  # before there is a run above them
        record(job)
        export(job, client)
    assert varied.parent("pretrain-seed_0", client) is None
    goes_on = varied.exporter(client)
    assert goes_on.pending() == [varied.id]
    goes_on.export(varied.id)
    assert goes_on.pending() == []
    run = client.get_run(varied.row().mlflow_run_id)
    assert (run.info.run_name, run.info.status) == (varied.row().name, "RUNNING")
    said = {key: run.data.tags[f"barlow.{key}"] for key in ("experiment", "varies", "jobs", "states")}
    expected = {"varies": "seed: 0, 1", "jobs": "3: 2 pretrain, 1 knn", "states": "3 running"}
    assert said == {"experiment": varied.row().name, **expected}
    assert run.data.tags["mlflow.user"] == "ana"

    varied.end(loss=10.0, top1=80.0)
    varied.export_all(client)
    assert_said(varied, client)
    for name, job in varied.jobs.items():
        assert_exported(job, client)
        pretrained = varied.jobs.get(name.replace("knn", "pretrain"), job).row().mlflow_run_id
        assert varied.parent(name, client) == (pretrained if name.startswith("knn") else varied.row().mlflow_run_id)
    trained, pixels = table(varied, client)
    assert trained == {
        "backbone": "pretrain, 2 seeds",
        "seeds": "0, 1",
        "loss, mean": 10.5,
        "loss, std": 0.707107,
        "loss, n": 2,
        "knn/1 top1, mean": 80.5,
        "knn/1 top1, std": 0.707107,
        "knn/1 top1, n": 2,
    }
    assert (pixels["backbone"], pixels["knn/1 top1, mean"], pixels["loss, n"]) == ("raw pixels", 20.0, None)
    run = client.get_run(varied.row().mlflow_run_id)
    assert run.data.tags["mlflow.note.content"] == "knn/1 top1 80.50 ± 0.71 (n=2) · 5 jobs by seed (2)"
    assert run.data.tags["barlow.states"] == "5 succeeded"
    last = max(job.row().finished_at for job in varied.jobs.values())
    assert run.info.end_time == round(last.timestamp() * 1000)


def test_a_grid_has_a_row_for_each_combination_with_the_best_one_told(
    lab: Lab, database: Settings, client: Any
) -> None:
    varied = VariedExperiment(lab, database, seeds=2, grid={"objective.lambda": [0.01, 0.05]})
    varied.end(top1=80.0)
    varied.exporter(client).export(varied.id)
    found = {row["lambda"]: (row["knn/1 top1, mean"], row["seeds"]) for row in table(varied, client)}
    assert found == {"0.01": (80.5, "0, 1"), "0.05": (82.5, "0, 1"), "": (20.0, "")}
    said = client.get_run(varied.row().mlflow_run_id).data.tags["mlflow.note.content"]
    assert said.startswith("best knn/1 top1 82.50 ± 0.71 (n=2): pretrain-lambda_0.05, 2 seeds · 9 jobs by ")
    assert said.endswith("objective.lambda (2), seed (2)")


def test_the_page_of_its_comparison_is_made_once_all_have_ended_and_are_recorded(
    lab: Lab, database: Settings, client: Any
) -> None:
    varied = VariedExperiment(lab, database)
    varied.exporter(client).export(varied.id)
    assert page(varied, client) is None
    varied.end()
    late = varied.jobs["pixels"]
    with lab.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE watermarks SET complete = false WHERE job_id = %s", (late.id,))
    varied.exporter(client).export(varied.id)
    assert table(varied, client)
    assert page(varied, client) is None
    assert varied.exporter(client).pending() == [], "nothing to do until the rest is recorded"
    record(late)
    with lab.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE watermarks SET complete = true WHERE job_id = %s", (late.id,))
    assert varied.exporter(client).pending() == [varied.id]
    varied.exporter(client).export(varied.id)
    assert "5 jobs, as of" in (page(varied, client) or "")
    assert varied.exporter(client).pending() == []


def test_a_retry_after_the_end_takes_the_place_of_what_failed_in_the_summary(
    lab: Lab, database: Settings, client: Any
) -> None:
    varied = VariedExperiment(lab, database)
    first, second = "pretrain-seed_0", "pretrain-seed_1"
    varied.pretrained(first, 10.0)
    lab.end(varied.jobs[second].attempt, AttemptOutcome.DIVERGED, "loss is not a number at step 3")
    for name in ("knn-seed_0", "pixels"):
        varied.judged(name, 80.0)
    varied.exporter(client).export(varied.id)
    run = client.get_run(varied.row().mlflow_run_id)
    assert (run.info.status, run.data.tags["barlow.states"]) == ("FAILED", "3 succeeded, 1 failed")
    assert table(varied, client)[0]["loss, n"] == 1

    retried = lab.retry(varied.jobs[second].id)
    varied.exporter(client).export(varied.id)
    run = client.get_run(varied.row().mlflow_run_id)
    assert (run.info.status, run.data.tags["barlow.states"]) == ("RUNNING", "1 queued, 3 succeeded")
    lab.run(retried, AttemptOutcome.OK, result={"metrics": {"loss": 12.0}})
    varied.exporter(client).export(varied.id)
    assert client.get_run(varied.row().mlflow_run_id).info.status == "FINISHED"
    row = table(varied, client)[0]
    assert (row["backbone"], row["loss, mean"], row["loss, n"]) == ("pretrain, 2 seeds", 11.0, 2)
    assert len(varied.runs(client)) == 1


def test_what_is_cancelled_before_it_was_recorded_counts_as_the_end(lab: Lab, database: Settings, client: Any) -> None:
    varied = VariedExperiment(lab, database)
    varied.end()
    facts: dict[str, Any] = {"after": [], "source_job_id": None, "actor": "test", "user": None}
    with lab.sessions.begin() as session:
        spec = parse_spec(small_pretraining(seed=2))
        later = jobs.submit(session, experiment_id=varied.id, spec=spec, name="later", **facts).id
    varied.exporter(client).export(varied.id)
    assert client.get_run(varied.row().mlflow_run_id).info.status == "RUNNING"
    assert page(varied, client) is None
    lab.cancel(later)
    assert varied.exporter(client).pending() == [varied.id]
    varied.exporter(client).export(varied.id)
    assert client.get_run(varied.row().mlflow_run_id).info.status == "KILLED"
    assert "6 jobs, as of" in (page(varied, client) or ""), "as many as ended"


def test_a_page_that_cannot_be_made_is_tried_a_few_times(
    lab: Lab, database: Settings, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TypeError("made up")

    varied = VariedExperiment(lab, database)
    varied.end()
    process = varied.exporter(client)
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "compare_page", fail)
        for _ in range(experiment.PAGE_TRIES - 1):
            with pytest.raises(TypeError):
                process.export(varied.id)
            assert process.pending() == [varied.id]
        process.export(varied.id)
        assert process.pending() == []
    (said,) = [one.getMessage() for one in caplog.records if "compare.html" in one.getMessage()]
    assert "made up" in said
    assert "rebuild-mlflow" in said
    assert (page(varied, client), table(varied, client)[0]["loss, mean"]) == (None, 10.5)
    with lab.sessions.begin() as session:
        request_rebuild(session, varied.jobs["pixels"].id, actor="test")
    process.export(varied.id)
    assert_said(varied, client)


def test_its_page_tells_of_jobs_that_a_retry_stands_for(lab: Lab, database: Settings, client: Any) -> None:
    varied = VariedExperiment(lab, database)
    varied.end()
    with lab.sessions.begin() as session:
        session.get_one(Job, varied.jobs["pretrain-seed_1"].id).retry_of = varied.jobs["pretrain-seed_0"].id
    varied.exporter(client).export(varied.id)
    assert "1 are left out, for a retry stands for each." in (page(varied, client) or "")


def test_a_page_whose_answer_is_lost_is_sent_once_and_waited_for_by_its_size(
    lab: Lab, database: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []

    def lose_answer(self: MlflowRun, text: str, name: str) -> None:
        client.log_text(self.id, text, name)
        if name == "compare.html":
            waited.append(int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]))
            raise TimeoutError("no answer")

    varied = VariedExperiment(lab, database)
    varied.end()
    monkeypatch.setattr(MlflowRun, "text", lose_answer)
    with pytest.raises(TimeoutError):
        varied.exporter(client).export(varied.id)
    varied.exporter(client).export(varied.id)
    assert_said(varied, client)
    size = len((page(varied, client) or "").encode())
    assert waited == [mlflow_run.SMALL_CALL_SECONDS + size // mlflow_run.UPLOAD_BYTES_PER_SECOND]


def test_all_wait_as_long_as_the_longest_upload_under_way() -> None:
    def waits() -> int:
        return int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) - mlflow_run.SMALL_CALL_SECONDS

    megabyte = mlflow_run.UPLOAD_BYTES_PER_SECOND
    with mlflow_run._patience(90 * megabyte):
        with mlflow_run._patience(5 * megabyte):
            assert waits() == 90
        assert waits() == 90
    assert waits() == 0


@pytest.mark.faults
@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
def test_what_sums_up_and_is_killed_at_any_call_is_completed(
    lab: Lab, database: Settings, client: Any, carried_out: bool
) -> None:
    varied = VariedExperiment(lab, database)
    varied.end()
    for calls in itertools.count(1):
        with lab.sessions.begin() as session:
            request_rebuild(session, varied.jobs["pixels"].id, actor="test")
        if varied.row().mlflow_run_id is not None:
            client.delete_run(varied.row().mlflow_run_id)
        try:
            varied.exporter(Dying(client, calls, carried_out=carried_out)).export(varied.id)
        except Killed:
            varied.exporter(client).export(varied.id)
        else:
            break
        assert_said(varied, client)
        assert_told(varied)
    assert calls > 8


def test_a_crash_before_the_jobs_are_told_of_the_run_above_them_is_made_up_for(
    lab: Lab, database: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    varied = VariedExperiment(lab, database)
    varied.end()
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "tell_of_parent", _crash)
        with pytest.raises(OperationalError):
            varied.exporter(client).export(varied.id)
    assert varied.row().mlflow_run_id is not None
    assert varied.jobs["pixels"].watermark("mlflow").position == {}
    varied.exporter(client).export(varied.id)
    assert_said(varied, client)
    assert_told(varied)


def _crash(*_: Any) -> None:
    raise OperationalError("", {}, Exception("the connection is lost"))


def test_a_pretraining_whose_files_are_left_is_told_of_the_run_above_it(
    lab: Lab, database: Settings, client: Any
) -> None:
    varied = VariedExperiment(lab, database)
    source = varied.jobs["pretrain-seed_0"]
    source.succeed()
    record(source)
    process = exporter(source, client)
    process.export(source.id)
    assert process.pending_files() == [source.id]
    varied.exporter(client).export(varied.id)
    process.export(source.id)
    process.upload(source.id)
    assert_exported(source, client)
    assert varied.parent("pretrain-seed_0", client) == varied.row().mlflow_run_id


def test_a_rebuild_makes_the_run_above_again_where_it_is_gone(lab: Lab, database: Settings, client: Any) -> None:
    varied = VariedExperiment(lab, database)
    varied.end()
    varied.exporter(client).export(varied.id)
    former = varied.row().mlflow_run_id
    client.delete_run(former)
    assert varied.exporter(client).pending() == []
    with lab.sessions.begin() as session:
        request_rebuild(session, varied.jobs["pixels"].id, actor="test")
    assert varied.exporter(client).pending() == [varied.id]
    varied.exporter(client).export(varied.id)
    assert varied.row().mlflow_run_id != former
    assert_said(varied, client)
    assert_told(varied)


def test_a_worker_makes_it_once_mlflow_is_there(lab: Lab, database: Settings, mlflow: Mlflow, client: Any) -> None:
    varied = VariedExperiment(lab, database)
    varied.end()
    away = make_client("http://127.0.0.1:9", mlflow.token)
    with pytest.raises(Exception, match=r"Max retries|refused"):
        varied.exporter(away).export(varied.id)
    told = {"mlflow_url": mlflow.url, "mlflow_token": SecretStr(mlflow.token), "recorder_seconds": 0.1}
    recorder = Recorder(database.model_copy(update=told), lab.engine)
    recorder.start()
    try:
        wait_until(lambda: "states" in varied.row().mlflow_told, 60)
        wait_until(lambda: all(job.watermark("mlflow").complete for job in varied.jobs.values()), 60)
    finally:
        recorder.stop()
    assert_said(varied, client)
    assert varied.parent("pretrain-seed_1", client) == varied.row().mlflow_run_id


def test_what_does_not_vary_has_no_run_of_its_own(lab: Lab, database: Settings, client: Any) -> None:
    job = RecordedJob(lab, database)
    job.started()
    record(job)
    export(job, client)
    assert experiment.ExperimentExporter(lab.engine, client, database.runs_dir).pending() == []
    assert "mlflow.parentRunId" not in client.get_run(job.row().mlflow_run_id).data.tags
