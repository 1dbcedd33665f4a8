"""Postgres rows → MLflow: which jobs are exported, by whom, into which run.

MLflow is disposable: a run that is gone there is made again from the rows, and one that holds more than the rows do
is deleted and made again. One run per job: whatever a lost answer or a second exporter left beside it is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, func, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from barlow_lab.run_folder import run_folder
from service.database.tables import Checkpoint, Experiment, Job, Watermark
from service.ledger.states import JobState
from service.recording import HOME, JOB_TAG, MLFLOW, POSTGRES, REBUILD, RUN_ID
from worker.recorder.export import FILES, LAST_STEP, Export
from worker.recorder.mlflow_experiment import MlflowExperiment
from worker.recorder.mlflow_run import MlflowRun, jobs_in
from worker.recorder.position import Overtaken, Position

log = logging.getLogger(__name__)


class MlflowExporter:
    """Exports jobs to MLflow. Any number may run: a job's advisory lock lets one at it, held by its connection.

    Files that may be large are uploaded apart from the rest, so that no job waits for another's backbone.
    """

    def __init__(self, engine: Engine, client: Any, runs_dir: Path) -> None:
        self._engine = engine
        self._client = client
        self._runs_dir = runs_dir
        self._runs: dict[UUID, MlflowRun] = {}
        self._gathered: set[UUID] = set()
        """Our experiments that were made one for a job of those that `pending` named last."""

    def pending(self) -> list[UUID]:
        """Jobs with something left to export whose run directory is visible here."""
        self._gathered.clear()
        return self._pending(~Watermark.position.has_key(FILES))

    def pending_files(self) -> list[UUID]:
        """Ended jobs of which only the files are left."""
        return self._pending(Watermark.position.has_key(FILES))

    def export(self, job_id: UUID) -> None:
        """Send what a job has now, a few seconds' worth at most; nothing if another exporter is at it.

        Raises:
            Exception: of MLflow or the database; whatever was sent, calling again completes it.
        """
        self._locked(job_id, self._export)

    def upload(self, job_id: UUID) -> None:
        """Send the files of an ended job, which is complete then; nothing if another exporter is at it.

        Raises:
            Exception: of MLflow or the database; whatever was sent, calling again completes it.
        """
        self._locked(job_id, self._upload)

    def _pending(self, *which: ColumnElement[bool]) -> list[UUID]:
        with Session(self._engine) as session:
            incomplete = (Watermark.target == MLFLOW, ~Watermark.complete)
            jobs = session.scalars(select(Watermark.job_id).where(*incomplete, *which).order_by(Watermark.job_id))
            return [job for job in jobs if run_folder(self._runs_dir, job).exists()]

    def _locked(self, job_id: UUID, do: Callable[[Session, Job, Position], None]) -> None:
        # Each statement is its own transaction: none is open while MLflow takes its time. If the connection breaks,
        # the lock is gone, and so is the way to move the watermark.
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            lock = func.hashtextextended(f"barlow.recorder.{MLFLOW}.{job_id}", 0)
            if not connection.scalar(select(func.pg_try_advisory_lock(lock))):
                return
            try:
                with Session(connection, expire_on_commit=False) as session:
                    mark = session.get_one(Watermark, (job_id, MLFLOW))
                    if not mark.complete:
                        do(session, session.get_one(Job, job_id), Position(session, job_id, mark.position))
            except Overtaken as overtaken:
                self._runs.pop(job_id, None)
                log.info("%s", overtaken)
            except BaseException:
                self._runs.pop(job_id, None)
                raise
            finally:
                connection.scalar(select(func.pg_advisory_unlock(lock)))

    def _export(self, session: Session, job: Job, position: Position) -> None:
        if FILES in position.value:
            return
        recorded = session.get_one(Watermark, (job.id, POSTGRES)).complete
        ended = JobState(job.state).terminal and recorded
        if job.source_job_id is not None and not self._source_is_settled(session, job.source_job_id):
            return
        if REBUILD in position.value:
            self._runs.pop(job.id, None)
            self._gather(session, job)
        run = self._run(session, job, position)
        export = Export(session, job, position, run, run_folder(self._runs_dir, job.id))
        export.facts()
        last_step = LAST_STEP if ended else _durable_step(session, job.id)
        if export.points(last_step) and export.images(last_step) and ended and export.end():
            self._runs.pop(job.id, None)

    def _upload(self, session: Session, job: Job, position: Position) -> None:
        if FILES not in position.value:
            return
        run = self._run(session, job, position)
        if FILES in position.value:  # else the run was gone from MLflow: all of it is sent again first
            Export(session, job, position, run, run_folder(self._runs_dir, job.id)).files()
        self._runs.pop(job.id, None)

    def _source_is_settled(self, session: Session, source: UUID) -> bool:
        """Whether the run of the pretraining is there to be the parent, or will hardly ever be.

        It will not where nothing of it was recorded, or where its run directory went before its first export; should
        it come all the same, from another volume, its children are told.
        """
        mark = session.get(Watermark, (source, MLFLOW))
        job = session.get_one(Job, source)
        gone = JobState(job.state).terminal and not run_folder(self._runs_dir, source).exists()
        return mark is None or mark.complete or job.mlflow_run_id is not None or gone

    def _experiment(self, session: Session, job: Job) -> str:
        """The id of the job's experiment there, which is stored."""
        ours = session.get_one(Experiment, job.experiment_id)
        stored = ours.mlflow_experiment_id
        ours.mlflow_experiment_id = self._of(session, ours).find_or_create(stored)
        session.commit()
        return ours.mlflow_experiment_id

    def _gather(self, session: Session, job: Job) -> None:
        """Make one of several MLflow experiments that are the job's; runs in the others stay until they are rebuilt.

        Once for all jobs that are waiting: what is doubled later is so until somebody asks again.
        """
        if job.experiment_id in self._gathered:
            return
        ours = session.get_one(Experiment, job.experiment_id)
        ours.mlflow_experiment_id = self._of(session, ours).gather(ours.mlflow_experiment_id)
        session.commit()
        self._gathered.add(job.experiment_id)

    def _of(self, session: Session, experiment: Experiment) -> MlflowExperiment:
        def owners(mlflow_id: str) -> set[UUID]:
            jobs = jobs_in(self._client, mlflow_id)
            return set(session.scalars(select(Job.experiment_id).where(Job.id.in_(jobs)).distinct()))

        return MlflowExperiment(self._client, experiment.id, experiment.name, owners)

    def _run(self, session: Session, job: Job, position: Position) -> MlflowRun:
        """The job's only run, looked for at the first touch; a position in another run counts for nothing.

        A run that is there stays where it is: of several experiments that are the job's, the rebuild of another job
        may have chosen another one since. Looked for after the experiment, which brings deleted runs back with it.
        """
        if job.id not in self._runs:
            run = MlflowRun.find_or_create(
                self._client,
                self._experiment(session, job),
                tag=_tag(job),
                known=job.mlflow_run_id,
                name=job.name,
                started_at=job.started_at or job.created_at,
                anew=REBUILD in position.value,
            )
            if job.mlflow_run_id != run.id:
                job.mlflow_run_id = run.id
                session.commit()
                _tell_children(session, job.id, run.id)
            self._runs[job.id] = run
        run = self._runs[job.id]
        where = {RUN_ID: run.id, HOME: run.experiment}
        if position.value.get(RUN_ID) != run.id:
            position.restart(**where)
        elif HOME not in position.value:
            position.keep(**where)
        return run


def _tag(job: Job) -> tuple[str, str]:
    return JOB_TAG, str(job.id)


def _tell_children(session: Session, source: UUID, run_id: str) -> None:
    """Have the evaluations of a pretraining look at the tag that names their parent again.

    The changed position overtakes an export that has read the former parent already.
    """
    children = select(Job.id).where(Job.source_job_id == source)
    told = Watermark.position.op("||")(func.jsonb_build_object("parent", run_id))
    statement = update(Watermark).where(Watermark.target == MLFLOW, Watermark.job_id.in_(children))
    session.execute(statement.values(position=told.cast(JSONB), complete=False))
    session.commit()


def _durable_step(session: Session, job_id: UUID) -> int:
    """The step that the newest checkpoint covers; -1: there is none."""
    newest = select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job_id, Checkpoint.kind != "backbone")
    step = session.scalar(newest)
    return -1 if step is None else step
