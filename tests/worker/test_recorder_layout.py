"""How a run stands in MLflow: little above its pictures, its files once, what a person reads first, and what a former
version began is continued as it was begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from journals import RecordedJob
from lab import Lab
from PIL import Image
from recorded import Killed, assert_exported, both, export, exporter, images, in_mlflow, in_postgres, record, runs

from barlow_lab.specs import digest, parse_spec
from service.ledger.states import AttemptOutcome
from service.local.agreement import compare
from service.local.servers import Mlflow
from service.recording import request_rebuild
from service.settings import Settings
from worker.recorder.facts import Facts
from worker.recorder.mlflow_run import make_client


@pytest.fixture
def client(mlflow: Mlflow) -> Any:
    return make_client(mlflow.url, mlflow.token)


def test_a_run_shows_the_spec_its_pictures_its_data_and_what_came_of_it(
    lab: Lab, database: Settings, client: Any
) -> None:
    job = RecordedJob(lab, database, "seen")
    job.views()
    splits = {"train": {"fingerprint": "ab" * 32, "images": 1437}}
    job.journal.append("data", name="digits", format="built in", splits=splits)
    job.started()
    job.correlation(0)
    job.steps(1, 5)
    job.journal.metrics(5, 1, {"grad_norm": 1.0, "images_per_second": 9.0})
    job.correlation(5)
    job.checkpoint(5)
    record(job)
    goes_on = exporter(job, client)
    goes_on.export(job.id)
    run_id = job.row().mlflow_run_id

    top = {artifact.path for artifact in client.list_artifacts(run_id)}
    assert top == {"spec.yaml", "views.png", "correlation.png", "images"}
    assert colour(client, run_id, "correlation.png") == 5, "the newest"
    assert images(job, client) == both("correlation", 0, 5), "the slider begins where nothing is learned"
    spec = yaml.safe_load(Path(client.download_artifacts(run_id, "spec.yaml")).read_text())
    assert digest(parse_spec(spec)) == job.row().spec_digest, "it can be submitted"
    run = client.get_run(run_id)
    assert run.data.metrics.keys() == {"loss", "on_diagonal", "training_grad_norm", "system/images_per_second"}
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("digits", "ab" * 6, "train")
    assert json.loads(data.dataset.source) == {"data_set": "digits", "format": "built in", "fingerprint": "ab" * 32}
    assert run.data.tags["mlflow.source.name"] == "barlow-lab"
    assert run.data.tags["mlflow.user"] == "ana"
    assert run.data.tags["mlflow.note.content"] == "tiny by barlow_twins on digits, 2 epochs at most"

    job.correlation(7)
    job.checkpoint(7)
    job.succeed()
    record(job)
    goes_on.export(job.id)
    goes_on.upload(job.id)
    assert_exported(job, client)
    assert colour(client, run_id, "correlation.png") == 7
    assert len(client.get_run(run_id).inputs.dataset_inputs) == 1


def colour(client: Any, run_id: str, name: str) -> int:
    """The step that a recorded job's picture is painted with."""
    with Image.open(client.download_artifacts(run_id, name)) as picture:
        red = picture.getpixel((0, 0))
    assert isinstance(red, tuple)
    return int(red[0])


def test_a_description_begins_with_what_came_of_the_job_and_leaves_a_person_s_alone(
    lab: Lab, database: Settings, client: Any
) -> None:
    notes = {}
    spec = {"kind": "knn", "data": "digits", "backbone_from": {"pixels": True}}
    for name, note in (("mine", None), ("theirs", "the best one so far"), ("removed", "")):
        job = RecordedJob(lab, database, name, spec=spec)
        job.started()
        record(job)
        goes_on = exporter(job, client)
        goes_on.export(job.id)
        run_id = job.row().mlflow_run_id
        if note:
            client.set_tag(run_id, "mlflow.note.content", note)
        elif note is not None:
            client.delete_tag(run_id, "mlflow.note.content")
        score = {"last": 71.256, "best": 72.5}
        result = {"protocol": "knn/1", "departures": {}, "headline": "top1", "scores": {"top1": score}}
        lab.end(job.attempt, AttemptOutcome.OK, result=result)
        record(job)
        export(job, client)  # by another process
        notes[name] = client.get_run(run_id).data.tags.get("mlflow.note.content")
    said = "top1 71.26 (best 72.50) · knn/1 of raw pixels on digits"
    assert notes == {"mine": said, "theirs": "the best one so far", "removed": None}


class DyingAtTheDescription:
    """A real client whose process is killed right after it has set a description, or right before."""

    def __init__(self, client: Any, *, carried_out: bool) -> None:
        self._client = client
        self._carried_out = carried_out

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            tags = named.get("tags", []) if name == "log_batch" else []
            dying = any(tag.key == "mlflow.note.content" for tag in tags)
            if dying and not self._carried_out:
                raise Killed
            answer = getattr(self._client, name)(*given, **named)
            if dying:
                raise Killed
            return answer

        return call


@pytest.mark.parametrize("carried_out", [True, False], ids=["behind it", "before it"])
def test_a_description_whose_sender_was_killed_is_followed_by_the_next(
    lab: Lab, database: Settings, client: Any, carried_out: bool
) -> None:
    spec = {"kind": "knn", "data": "digits", "backbone_from": {"pixels": True}}
    job = RecordedJob(lab, database, "killed", spec=spec)
    job.started()
    record(job)
    with pytest.raises(Killed):
        export(job, DyingAtTheDescription(client, carried_out=carried_out))
    result = {
        "protocol": "knn/1",
        "departures": {},
        "headline": "top1",
        "scores": {"top1": {"last": 71.0, "best": 72.0}},
    }
    lab.end(job.attempt, AttemptOutcome.OK, result=result)
    record(job)
    with pytest.raises(Killed):
        export(job, DyingAtTheDescription(client, carried_out=False))
    export(job, client)
    said = client.get_run(job.row().mlflow_run_id).data.tags["mlflow.note.content"]
    assert said == "top1 71.00 (best 72.00) · knn/1 of raw pixels on digits"
    assert job.watermark("mlflow").complete


def test_what_is_journalled_before_training_is_found_behind_minutes_of_progress(lab: Lab, database: Settings) -> None:
    job = RecordedJob(lab, database, "slow to load")
    for image in range(400):
        job.journal.append("progress", phase="loading", step=image)
    job.journal.append(
        "data", name="digits", format="built in", splits={"train": {"fingerprint": "ab" * 32, "images": 1437}}
    )
    for _ in range(400):
        job.journal.append("progress", phase="building")
    job.started()
    with lab.sessions() as session:
        facts = Facts(session, job.row(), job.run)
        assert [one.images for one in facts.data()] == [1437]
        assert facts.tags()["barlow.torch"] == "2"


@pytest.mark.parametrize("forgotten", [False, True], ids=["watermark kept", "watermark lost"])
def test_what_a_former_version_began_is_continued_as_it_was_begun(
    lab: Lab, database: Settings, client: Any, mlflow: Mlflow, forgotten: bool
) -> None:
    job = RecordedJob(lab, database, "half")
    job.views()
    job.started()
    job.steps(1, 5)
    job.journal.metrics(5, 1, {"grad_norm": 5.0})
    job.correlation(5)
    job.checkpoint(5)
    record(job)
    run_id = begun_by_a_former_version(job, client, forgotten=forgotten)
    job.steps(6, 9)
    job.journal.metrics(9, 1, {"grad_norm": 9.0})
    job.correlation(9)
    job.checkpoint(9)
    record(job)
    exporter(job, client).export(job.id)
    job.succeed()
    record(job)
    export(job, client)
    assert runs(job, client) == [run_id] == [job.row().mlflow_run_id]
    assert in_mlflow(job, client) == in_postgres(job)
    run = client.get_run(run_id)
    assert {key for key in run.data.metrics if "grad_norm" in key} == {"grad_norm"}
    assert run.data.params == former_params(job.row().spec)
    names = sorted(artifact.path.partition("+timestamp")[0] for artifact in client.list_artifacts(run_id, "images"))
    each = ("correlation+step+5", "correlation+step+9", "views+step+0")
    assert names == [f"images/{name}" for name in each for _ in ("png", "webp")]
    here, name = database.database_url.get_secret_value(), f"lab-{lab.engine.url.database}"
    faults = compare(here, mlflow.url, name, token=mlflow.token).faults
    assert [fault for fault in faults if "at least 50" not in fault] == []

    with lab.sessions.begin() as session:
        request_rebuild(session, job.id, actor="test")
    export(job, client)
    assert_exported(job, client)
    assert images(job, client) == both("correlation", 5, 9)


def begun_by_a_former_version(job: RecordedJob, client: Any, *, forgotten: bool) -> str:
    """Half of a job as it was recorded before runs had a layout: every value of its spec as a param."""
    from mlflow.entities import Metric, Param

    row, name = job.row(), f"lab-{job.lab.engine.url.database}"
    tags = {"barlow.job_id": str(job.id), "mlflow.loggedImages": "true"}
    run_id = str(client.create_run(client.create_experiment(name), tags=tags, run_name=row.name).info.run_id)
    params = [Param(key, value) for key, value in former_params(row.spec).items()]
    assert len(params) > 70
    client.log_batch(run_id, params=params)
    points = [Metric(key, value, at, step) for key, found in in_postgres(job).items() for step, value, at in found]
    client.log_batch(run_id, metrics=points)
    for key, step, file in (("correlation", 5, "correlation/step-00000005.png"), ("views", 0, "views.png")):
        with Image.open(job.folder / file) as picture:
            client.log_image(run_id, picture, key=key, step=step)
    position = {"run_id": run_id, "tags": {"barlow.kind": "pretrain"}, "point": [5, "on_diagonal"], "points": 11}
    with job.lab.sessions.begin() as session:
        session.get_one(type(row), job.id).mlflow_run_id = run_id
        mark = session.get_one(type(job.watermark("mlflow")), (job.id, "mlflow"))
        mark.position = {} if forgotten else {**position, "images": 2}
    return run_id


def former_params(spec: dict[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in spec.items():
        if isinstance(value, dict) and value:
            out |= former_params(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = json.dumps(value) if isinstance(value, list | dict) else str(value)
    return out
