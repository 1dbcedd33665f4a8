"""What a recorded job is in Postgres and in MLflow, and clients that die: for tests of the recorder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from journals import RecordedJob
from sqlalchemy import func, select

from service.database.tables import Correlation, Image, Metric
from service.ledger.states import JobState
from service.mlflow_layout import LAYOUT_TAG, metric_name, params
from worker.recorder.export import STATUS
from worker.recorder.mlflow import MlflowExporter
from worker.recorder.postgres import PostgresRecorder

Points = dict[str, list[tuple[int, float, int]]]
"""Metric → (step, value, milliseconds) of every point, sorted; a point that stands twice is there twice."""


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


class Meanwhile:
    """A real client; whenever points are about to be sent, something else happens first."""

    def __init__(self, client: Any, happens: Callable[[], None]) -> None:
        self._client = client
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            if "metrics" in named:
                self._happens()
            return getattr(self._client, name)(*given, **named)

        return call


class Counting:
    """A real client that knows what it was asked for."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self._calls[name] += 1
        return getattr(self._client, name)

    def during(self, do: Callable[[UUID], None], job_id: UUID) -> Counter[str]:
        """How often each call was made by it."""
        before = self._calls.copy()
        do(job_id)
        return self._calls - before


def record(job: RecordedJob) -> None:
    PostgresRecorder(job.lab.sessions, job.run.parent).flush(job.id)


def exporter(job: RecordedJob, client: Any) -> MlflowExporter:
    return MlflowExporter(job.lab.engine, client, job.run.parent)


def export(job: RecordedJob, client: Any) -> None:
    """Everything there is, by a process that begins with it."""
    process = exporter(job, client)
    process.export(job.id)
    process.upload(job.id)


def in_postgres(job: RecordedJob) -> Points:
    found: Points = {}
    with job.lab.sessions() as session:
        for row in session.scalars(select(Metric).where(Metric.job_id == job.id)):
            found.setdefault(row.key, []).append((row.step, row.value, round(row.at.timestamp() * 1000)))
    return {key: sorted(points) for key, points in found.items()}


def in_mlflow(job: RecordedJob, client: Any) -> Points:
    """By the names of the run database."""
    run_id = job.row().mlflow_run_id
    data = client.get_run(run_id).data
    ours = {metric_name(key) if data.tags.get(LAYOUT_TAG[0]) else key: key for key in in_postgres(job)}
    points = {
        key: sorted((m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, key))
        for key in data.metrics
    }
    return {ours.get(key, key): found for key, found in points.items()}


def runs(job: RecordedJob, client: Any) -> list[str]:
    """The job's runs that are not deleted."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run.info.run_id for run in client.search_runs(experiments, f"tags.`barlow.job_id` = '{job.id}'")]


def assert_exported(job: RecordedJob, client: Any) -> None:
    """All of an ended job is in MLflow, once."""
    assert job.watermark("mlflow").complete
    assert runs(job, client) == [job.row().mlflow_run_id]
    assert in_mlflow(job, client) == in_postgres(job)
    run = client.get_run(job.row().mlflow_run_id)
    assert run.info.status == STATUS[JobState(job.row().state)]
    assert run.data.params == expected_params(job)
    assert sorted(a.path for a in client.list_artifacts(run.info.run_id)) == at_the_top(job)
    files = {file.name for file in (job.run / "backbone").iterdir()} if (job.run / "backbone").exists() else set()
    assert {Path(artifact.path).name for artifact in client.list_artifacts(run.info.run_id, "backbone")} == files
    if job.row().result is not None:
        assert client.download_artifacts(run.info.run_id, "result.json")


def expected_params(job: RecordedJob) -> dict[str, str]:
    row = job.row()
    return params(row.spec, None if row.source_job_id is None else job.lab.job(row.source_job_id).name)


def at_the_top(job: RecordedJob) -> list[str]:
    """What an ended job's artifacts show first, sorted."""
    with job.lab.sessions() as session:
        pictures = bool(session.scalar(select(func.count()).where(Correlation.job_id == job.id)))
        keys = set(session.scalars(select(Image.key).where(Image.job_id == job.id)))
    found = {"spec.yaml", *(f"{key}.png" for key in keys)}
    found |= {"correlation.png", "images"} if pictures else set()
    found |= {"images"} if keys - {"views"} else set()
    found |= {"backbone"} if (job.run / "backbone").exists() else set()
    return sorted(found | ({"result.json"} if job.row().result is not None else set()))


def images(job: RecordedJob, client: Any) -> Counter[tuple[str, str]]:
    """How often each (key, step) stands there, by kind of file."""
    names = [artifact.path for artifact in client.list_artifacts(job.row().mlflow_run_id, "images")]
    return Counter((name.split("+timestamp")[0].removeprefix("images/"), name.rsplit(".", 1)[1]) for name in names)


def both(key: str, *steps: int) -> Counter[tuple[str, str]]:
    """What `images` has of pictures at these steps: a file and its thumbnail of each, once."""
    return Counter((f"pictures~{key}+step+{step}", end) for step in steps for end in ("png", "webp"))
