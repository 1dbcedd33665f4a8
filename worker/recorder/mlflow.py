"""Postgres rows → MLflow: one run per job, made and filled so that doing any part again changes nothing.

While a job runs, only what its newest checkpoint covers is sent: a resume would draw the rest a second time. Points
carry the journal's time, so MLflow drops a point that is sent twice. MLflow is disposable: a run that is gone there
is made again from the rows.
"""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, func, literal, select, tuple_
from sqlalchemy.orm import Session

from service.database.tables import Attempt, Checkpoint, Correlation, Experiment, Image, Job, Metric, Watermark
from service.ledger.states import JobState
from service.run_folders import attempt_folder, run_folder
from trainer.journal import FILE_NAME, read_events
from worker.recorder import postgres
from worker.recorder.mlflow_run import POINTS, MlflowRun, Point, experiment_id

TARGET = "mlflow"
JOB_TAG = "barlow.job_id"
STATUS = {JobState.SUCCEEDED: "FINISHED", JobState.FAILED: "FAILED", JobState.CANCELLED: "KILLED"}
MACHINE_FACTS = ("host", "device", "world_size", "threads")
LAST_STEP = 2**62


class MlflowExporter:
    """Exports jobs to MLflow. Any number may run: a job's advisory lock lets one at it, held by its connection."""

    def __init__(self, engine: Engine, client: Any, runs_dir: Path) -> None:
        self._engine = engine
        self._client = client
        self._runs_dir = runs_dir
        self._runs: dict[UUID, MlflowRun] = {}

    def pending(self) -> list[UUID]:
        """Jobs with something left to export whose run directory is visible here."""
        with Session(self._engine) as session:
            jobs = session.scalars(
                select(Watermark.job_id)
                .where(Watermark.target == TARGET, ~Watermark.complete)
                .order_by(Watermark.job_id)
            )
            return [job for job in jobs if run_folder(self._runs_dir, job).exists()]

    def export(self, job_id: UUID) -> None:
        """Send what a job has now; nothing if another exporter is at it.

        Raises:
            Exception: of MLflow or the database; whatever was sent, calling again completes it.
        """
        # Each statement is its own transaction: none is open while MLflow takes its time. If the connection breaks,
        # the lock is gone, and so is the way to move the watermark.
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            lock = func.hashtextextended(f"barlow.recorder.{TARGET}.{job_id}", 0)
            if not connection.scalar(select(func.pg_try_advisory_lock(lock))):
                return
            try:
                with Session(connection, expire_on_commit=False) as session:
                    self._export(session, job_id)
            except BaseException:
                self._runs.pop(job_id, None)
                raise
            finally:
                connection.scalar(select(func.pg_advisory_unlock(lock)))

    def _export(self, session: Session, job_id: UUID) -> None:
        job = session.get_one(Job, job_id)
        mark = session.get_one(Watermark, (job_id, TARGET))
        if mark.complete:
            return
        ended = JobState(job.state).terminal and session.get_one(Watermark, (job_id, postgres.TARGET)).complete
        if job.source_job_id is not None and not self._source_is_known(session, job.source_job_id):
            return
        run = self._run(session, job)
        position = mark.position if mark.position.get("run_id") == run.id else {}
        export = _Export(session, job, mark, {**position, "run_id": run.id}, run, run_folder(self._runs_dir, job_id))
        export.facts()
        export.points(LAST_STEP if ended else _durable_step(session, job_id))
        export.images(LAST_STEP if ended else _durable_step(session, job_id))
        if ended:
            export.end()
            del self._runs[job_id]

    def _source_is_known(self, session: Session, source: UUID) -> bool:
        """Whether the run of the pretraining is there to be the parent, or will never be."""
        mark = session.get(Watermark, (source, TARGET))
        return mark is None or mark.complete or session.get_one(Job, source).mlflow_run_id is not None

    def _run(self, session: Session, job: Job) -> MlflowRun:
        if job.id not in self._runs:
            experiment = session.get_one(Experiment, job.experiment_id)
            found = experiment_id(self._client, experiment.name)
            run = MlflowRun.find_or_create(
                self._client,
                found,
                tag=(JOB_TAG, str(job.id)),
                name=job.name,
                started_at=job.started_at or job.created_at,
            )
            experiment.mlflow_experiment_id, job.mlflow_run_id = found, run.id
            session.commit()
            self._runs[job.id] = run
        return self._runs[job.id]


class _Export:
    """One pass over one job. `position` is the watermark: what MLflow is known to have."""

    def __init__(
        self, session: Session, job: Job, mark: Watermark, position: dict[str, Any], run: MlflowRun, folder: Path
    ) -> None:
        self._session = session
        self._job = job
        self._mark = mark
        self._position = position
        self._run = run
        self._folder = folder

    def facts(self) -> None:
        """Params once; tags whenever they changed."""
        if "tags" not in self._position:
            self._run.params(flattened(self._job.spec))
        tags = self._tags()
        old = self._position.get("tags", {})
        if changed := {key: value for key, value in tags.items() if old.get(key) != value}:
            self._run.tags(changed)
            self._keep(tags=tags)

    def points(self, last_step: int) -> None:
        """Points in the order of (step, key), up to `last_step`."""
        while chunk := self._points_after(self._position.get("point", [-1, ""]), last_step):
            self._run.points(chunk)
            key, step, *_ = chunk[-1]
            self._keep(point=[step, key], points=self._position.get("points", 0) + len(chunk))

    def images(self, last_step: int) -> None:
        """Heatmaps and other pictures up to `last_step`."""
        rows: list[tuple[str, int, datetime, str]] = []
        for statement in (
            select(literal("correlation"), Correlation.step, Correlation.at, Correlation.image).where(
                Correlation.job_id == self._job.id, Correlation.step <= last_step
            ),
            select(Image.key, Image.step, Image.at, Image.file).where(
                Image.job_id == self._job.id, Image.step <= last_step
            ),
        ):
            rows += [(key, step, at, file) for key, step, at, file in self._session.execute(statement)]
        if len(rows) != self._position.get("images", 0):
            self._run.images((key, step, at, self._folder / file) for key, step, at, file in sorted(rows))
            self._keep(images=len(rows))

    def end(self) -> None:
        """What an ended job leaves: every point, the backbone, the result, the status."""
        everything = self._session.scalar(select(func.count()).select_from(Metric).where(Metric.job_id == self._job.id))
        if everything != self._position.get("points", 0):
            # A line may stand behind the checkpoint that covers its step; sent again, the others stay single.
            self._keep(point=[-1, ""], points=0)
            self.points(LAST_STEP)
        backbone = self._folder / "backbone"
        if self._job.state == JobState.SUCCEEDED and backbone.is_dir():
            for file in sorted(backbone.iterdir()):
                self._run.artifact(file, "backbone")
        if self._job.result is not None:
            self._run.text(json.dumps(self._job.result, indent=2), "result.json")
        assert self._job.finished_at is not None, "an ended job has its end"
        self._run.finish(STATUS[JobState(self._job.state)], self._job.finished_at)
        self._mark.complete = True
        self._keep()

    def _points_after(self, point: list[Any], last_step: int) -> list[Point]:
        statement = (
            select(Metric.key, Metric.step, Metric.value, Metric.at)
            .where(
                Metric.job_id == self._job.id,
                Metric.step <= last_step,
                tuple_(Metric.step, Metric.key) > tuple_(literal(point[0]), literal(point[1])),
            )
            .order_by(Metric.step, Metric.key)
            .limit(POINTS)
        )
        return [(key, step, value, at) for key, step, value, at in self._session.execute(statement)]

    def _tags(self) -> dict[str, str]:
        """Facts of the job and of its newest attempt."""
        job = self._job
        tags = {"barlow.kind": job.kind, "barlow.spec_digest": job.spec_digest, "barlow.state": job.state}
        tags |= {f"label.{key}": str(value) for key, value in job.labels.items()}
        attempts = self._session.scalars(
            select(Attempt).where(Attempt.job_id == job.id, Attempt.started_at.is_not(None)).order_by(Attempt.number)
        ).all()
        if attempts:
            tags |= {"barlow.attempts": str(len(attempts)), "barlow.node": attempts[-1].node}
            facts = _machine_facts(attempt_folder(self._folder, attempts[-1].number) / FILE_NAME)
            tags |= {f"barlow.{key}": str(value) for key, value in facts.items() if value is not None}
        if job.error is not None:
            tags["barlow.error"] = str(job.error.get("message", ""))
        if job.source_job_id is not None:
            source = self._session.get_one(Job, job.source_job_id)
            tags |= {"mlflow.parentRunId": source.mlflow_run_id} if source.mlflow_run_id else {}
        return tags

    def _keep(self, **changes: Any) -> None:
        """Move the watermark; fails if the connection, and the lock with it, is gone."""
        self._position = {**self._position, **changes}
        self._mark.position = self._position
        self._mark.updated_at = datetime.now(UTC)
        self._session.commit()


def flattened(spec: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """A resolved spec as MLflow params: `optimizer.learning_rate` → its value as text; lists as JSON."""
    out: dict[str, str] = {}
    for key, value in spec.items():
        if isinstance(value, dict) and value:
            out |= flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list | dict):
            out[f"{prefix}{key}"] = json.dumps(value)
        else:
            out[f"{prefix}{key}"] = str(value)
    return out


def _machine_facts(journal: Path) -> dict[str, Any]:
    """What an attempt's `started` event says of its machine; nothing if it is not there, or not to be read."""
    # Loading the data comes before it, with an event or two of progress.
    with contextlib.suppress(ValueError):  # a damaged line, of which the other recorder complains
        for line in read_events(journal, limit=20):
            if line.kind == "started":
                return {**line.data.get("versions", {}), **{key: line.data.get(key) for key in MACHINE_FACTS}}
    return {}


def _durable_step(session: Session, job_id: UUID) -> int:
    """The step that the newest checkpoint covers; -1: there is none."""
    newest = select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job_id, Checkpoint.kind != "backbone")
    step = session.scalar(newest)
    return -1 if step is None else step
