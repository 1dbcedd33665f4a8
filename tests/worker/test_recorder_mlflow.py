"""Postgres rows → a real MLflow server: every point and picture once, whatever is killed."""

import itertools
import json
import threading
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from journals import RESULT, RecordedJob
from lab import Lab
from recorded import (
    Dying,
    Killed,
    assert_exported,
    both,
    expected_params,
    export,
    exporter,
    images,
    in_mlflow,
    in_postgres,
    record,
)
from sqlalchemy import update

from service.database.tables import Watermark
from service.ledger.states import AttemptOutcome
from service.local.servers import Mlflow
from service.settings import Settings
from worker.recorder.loops import Recorder
from worker.recorder.mlflow_run import make_client


def test_a_running_job_is_exported_to_its_checkpoint_and_an_ended_one_whole(
    lab: Lab, database: Settings, mlflow: Mlflow
) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    goes_on = exporter(job, client)
    job.started()
    job.journal.append("warning", step=1, message="all images are of one colour")
    job.steps(1, 5)
    job.correlation(5)
    job.checkpoint(5)
    job.steps(6, 9)
    job.correlation(9)
    record(job)
    goes_on.export(job.id)
    assert [step for step, *_ in in_mlflow(job, client)["loss"]] == [1, 2, 3, 4, 5]
    assert set(images(job, client).elements()) == {
        ("pictures~correlation+step+5", "png"),
        ("pictures~correlation+step+5", "webp"),
    }
    job.again()
    job.started(resume_step=5)
    job.steps(6, 12, value=100.0)
    job.correlation(12)
    job.checkpoint(12)
    job.steps(12, 12, value=200.0)  # a line behind the checkpoint that covers its step replaces the one before it
    job.journal.metrics(12, 1, {"late": 1.0})
    record(job)
    goes_on.export(job.id)
    run = client.get_run(job.row().mlflow_run_id)
    assert run.info.status == "RUNNING"
    assert run.data.tags["barlow.attempts"] == "2"
    assert run.data.tags["barlow.warnings"] == "all images are of one colour"
    job.succeed()
    record(job)
    goes_on.export(job.id)
    assert client.get_run(run.info.run_id).data.tags["barlow.health"] == "60 of 128 directions\nnearly decorrelated"
    assert (goes_on.pending(), goes_on.pending_files()) == ([], [job.id]), "its files keep nobody waiting"
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    goes_on.upload(job.id)
    assert job.watermark("mlflow").complete
    assert (goes_on.pending(), goes_on.pending_files()) == ([], [])
    assert goes_on._runs == {}, "nothing is kept of a job that is done"
    assert in_mlflow(job, client) == in_postgres(job)
    assert len(in_mlflow(job, client)["loss"]) == 12
    assert images(job, client) == {
        (f"pictures~correlation+step+{n}", end): 1 for n in (5, 12) for end in ("png", "webp")
    }

    run = client.get_run(job.row().mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "recorded"
    assert run.data.params == expected_params(job)
    assert run.data.tags["barlow.spec_digest"] == job.row().spec_digest
    assert run.data.tags["barlow.node"] == "gpu-1"
    assert run.data.tags["barlow.torch"] == "2"
    finished_at = job.row().finished_at
    assert finished_at is not None
    assert datetime.fromtimestamp(run.info.end_time / 1000).timestamp() == pytest.approx(finished_at.timestamp(), abs=1)
    backbone = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "backbone")}
    assert backbone == {"backbone/model.safetensors", "backbone/config.json"}
    assert json.loads(Path(client.download_artifacts(run.info.run_id, "result.json")).read_text()) == RESULT


def test_an_evaluation_s_run_says_what_it_measured_of_whose_backbone(
    lab: Lab, database: Settings, mlflow: Mlflow
) -> None:
    client = make_client(mlflow.url, mlflow.token)
    source = RecordedJob(lab, database, "barlow-twins")
    source.started()
    source.succeed()
    record(source)
    export(source, client)
    published = {"source": "A table of somebody", "scores": {"top1": 73.2}}
    judging = {"kind": "linear", "data": "digits", "run": {"published": published}}
    trained = RecordedJob(
        lab, database, "linear", source=source.id, spec={**judging, "backbone_from": {"job": "barlow-twins"}}
    )
    export(trained, client)
    running = client.get_run(trained.row().mlflow_run_id).data.tags
    assert "barlow.headline" not in running
    score = {"last": 71.256, "best": 72.5}
    of_before = "linear-document/0"  # a result stays under the version it was told under
    result = {"protocol": of_before, "departures": {}, "headline": "top1", "scores": {"top1": score}}
    trained.started()
    lab.end(trained.attempt, AttemptOutcome.OK, result=result)
    untrained = RecordedJob(
        lab, database, "floor", spec={**judging, "backbone_from": {"random": 3}, "backbone": {"name": "tiny"}}
    )
    for job in (trained, untrained):
        record(job)
        export(job, client)
    tags = client.get_run(trained.row().mlflow_run_id).data.tags
    expected = {
        "barlow.protocol": "linear-document/1",
        "barlow.data": "digits",
        "barlow.backbone": "barlow-twins",
        "barlow.source_job": "barlow-twins",
        "barlow.published_in": "A table of somebody",
        "mlflow.parentRunId": source.row().mlflow_run_id,
    }
    assert {**running, **expected} == running
    ended = {"barlow.headline": "top1 71.26 (best 72.50)", "barlow.protocol": of_before}
    assert {**tags, **expected, **ended} == tags
    floor = client.get_run(untrained.row().mlflow_run_id).data
    assert floor.tags["barlow.backbone"] == "untrained tiny, seed 3"
    assert "barlow.source_job" not in floor.tags
    assert floor.params == {"data": "digits", "backbone": "untrained tiny, seed 3", "learning_rate": "0.3"}
    assert "barlow.protocol" not in client.get_run(source.row().mlflow_run_id).data.tags


@pytest.mark.faults
@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
def test_an_exporter_that_is_killed_at_any_call_leaves_nothing_twice(
    lab: Lab, database: Settings, mlflow: Mlflow, carried_out: bool
) -> None:
    client = make_client(mlflow.url, mlflow.token)
    for calls in itertools.count(1):
        lab.node()  # a slow machine takes longer than a lease for all of them
        job = RecordedJob(lab, database, f"killed-at-{calls}")
        job.started()
        job.steps(1, 8)
        job.correlation(4)
        job.checkpoint(8)
        job.succeed()
        record(job)
        try:
            export(job, Dying(client, calls, carried_out=carried_out))
        except Killed:
            export(job, client)
        else:
            break
        assert_exported(job, client)
        assert images(job, client) == both("correlation", 4)
    assert calls > 10, "an export makes more than ten calls"


def test_a_picture_without_its_thumbnail_is_completed(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    job.started()
    record(job)
    exporter(job, client).export(job.id)
    run_id = job.row().mlflow_run_id
    job.correlation(4)
    picture = job.folder / "correlation" / "pictures~correlation+step+4+timestamp+1+some-uuid.png"
    picture.write_bytes((job.folder / "correlation" / "step-00000004.png").read_bytes())
    client.log_artifact(run_id, str(picture), "images")
    job.checkpoint(4)
    record(job)
    exporter(job, client).export(job.id)
    assert images(job, client) == {
        ("pictures~correlation+step+4", "png"): 1,
        ("pictures~correlation+step+4", "webp"): 1,
    }


def test_a_damaged_journal_and_a_damaged_picture_hold_up_nothing(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    job.started()
    job.correlation(4)
    job.correlation(8)
    (job.folder / "correlation" / "step-00000004.png").write_bytes(b"\x89PNG\r\n")
    job.steps(1, 4)
    job.checkpoint(8)
    with (job.folder / "journal.jsonl").open("ab") as file:
        file.write(b"\0" * 64 + b"\n")
    record(job)
    job.succeed()
    record(job)
    export(job, client)
    assert job.watermark("mlflow").complete
    assert in_mlflow(job, client) == in_postgres(job)
    assert images(job, client) == {
        ("pictures~correlation+step+8", "png"): 1,
        ("pictures~correlation+step+8", "webp"): 1,
    }
    assert client.get_run(job.row().mlflow_run_id).data.tags["barlow.torch"] == "2"


def test_an_experiment_that_was_deleted_in_mlflow_comes_back(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    goes_on = exporter(job, client)
    job.started()
    job.steps(1, 5)
    job.checkpoint(5)
    record(job)
    goes_on.export(job.id)
    # An admin may, and this recorder may not: so it is done where MLflow keeps it.
    experiment = client.get_run(job.row().mlflow_run_id).info.experiment_id
    with psycopg.connect(mlflow.database_url) as connection:
        for table in ("experiments", "runs"):
            connection.execute(f"UPDATE {table} SET lifecycle_stage = 'deleted' WHERE experiment_id = %s", [experiment])
    job.steps(6, 7)
    job.checkpoint(7)
    record(job)
    with pytest.raises(Exception, match="active"):
        goes_on.export(job.id)
    goes_on.export(job.id)
    assert in_mlflow(job, client) == in_postgres(job)


def test_every_label_that_a_spec_may_have_reaches_mlflow(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    labels = {f"team/a.b_c-{n}": "x" * 200 for n in range(48)} | {"empty": "", "unicode": "größer 雪 🙂"}
    job = RecordedJob(lab, database, labels=labels)
    job.started()
    record(job)
    exporter(job, client).export(job.id)
    data = client.get_run(job.row().mlflow_run_id).data
    assert {key.removeprefix("label."): value for key, value in data.tags.items() if "label." in key} == labels
    assert data.tags["mlflow.user"] == "ana"


def test_an_evaluation_is_a_child_of_its_pretraining(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    source = RecordedJob(lab, database, "source")
    source.started()
    record(source)
    source.succeed()
    child = RecordedJob(lab, database, "child", source=source.id)
    child.started()
    record(child)
    goes_on = exporter(child, client)
    goes_on.export(child.id)
    assert child.row().mlflow_run_id is None, "it waits for its parent's run"
    goes_on.export(source.id)
    goes_on.export(child.id)
    tags = client.get_run(child.row().mlflow_run_id).data.tags
    assert tags["mlflow.parentRunId"] == source.row().mlflow_run_id
    lab.end(child.attempt, AttemptOutcome.DIVERGED, "loss is not a number at step 3")
    record(child)
    goes_on.export(child.id)
    run = client.get_run(child.row().mlflow_run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["barlow.error"] == "loss is not a number at step 3"


def test_a_run_that_is_gone_from_mlflow_is_made_again(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    goes_on = exporter(job, client)
    job.started()
    job.steps(1, 5)
    job.checkpoint(5)
    record(job)
    goes_on.export(job.id)
    former = job.row().mlflow_run_id
    client.delete_run(former)
    job.steps(6, 7)
    job.checkpoint(7)
    record(job)
    with pytest.raises(Exception, match="deleted"):
        goes_on.export(job.id)
    goes_on.export(job.id)
    assert job.row().mlflow_run_id != former
    assert in_mlflow(job, client) == in_postgres(job)


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
    recorder.flush(job.id, lambda: None)
    recorder.stop()
    assert job.watermark("postgres").complete
    assert not job.watermark("mlflow").complete
    client = make_client(mlflow.url, mlflow.token)
    exporter(job, client).export(job.id)
    assert in_mlflow(job, client) == in_postgres(job)


def test_only_one_exporter_is_at_a_job(lab: Lab, database: Settings, mlflow: Mlflow) -> None:
    client = make_client(mlflow.url, mlflow.token)
    job = RecordedJob(lab, database)
    job.started()
    job.steps(1, 30)
    for step in (10, 20, 30):
        job.correlation(step)
    job.checkpoint(30)
    record(job)
    threads = [threading.Thread(target=exporter(job, client).export, args=(job.id,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    exporter(job, client).export(job.id)
    assert in_mlflow(job, client) == in_postgres(job)
    assert set(images(job, client).values()) == {1}
    with lab.sessions.begin() as session:
        session.execute(update(Watermark).where(Watermark.job_id == job.id).values(position={}))
    exporter(job, client).export(job.id)
    assert in_mlflow(job, client) == in_postgres(job), "a watermark that is lost costs time, not truth"
    assert set(images(job, client).values()) == {1}
