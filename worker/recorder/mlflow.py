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

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.orm import Session

from barlow_lab.run_folder import run_folder
from service.database.tables import Checkpoint, Job, Watermark
from service.ledger.states import JobState
from service.recording import HOME, JOB_TAG, MLFLOW, POSTGRES, REBUILD, RUN_ID
from worker.recorder.alone import alone
from worker.recorder.experiment_home import gather, home_of
from worker.recorder.export import LAST_STEP, Export
from worker.recorder.mlflow_run import MlflowRun
from worker.recorder.parents import tell_of_parent
from worker.recorder.position import FILES, JobPosition, Overtaken

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

    def _locked(self, job_id: UUID, do: Callable[[Session, Job, JobPosition], None]) -> None:
        with alone(self._engine, f"{MLFLOW}.{job_id}") as session:
            if session is None:
                return
            try:
                mark = session.get_one(Watermark, (job_id, MLFLOW))
                if not mark.complete:
                    do(session, session.get_one(Job, job_id), JobPosition(session, job_id, mark.position))
            except Overtaken as overtaken:
                self._runs.pop(job_id, None)
                log.info("%s", overtaken)
            except BaseException:
                self._runs.pop(job_id, None)
                raise

    def _export(self, session: Session, job: Job, position: JobPosition) -> None:
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

    def _upload(self, session: Session, job: Job, position: JobPosition) -> None:
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

    def _gather(self, session: Session, job: Job) -> None:
        """Gather the job's experiment, once for all jobs that are waiting: what is doubled later is so until somebody
        asks again."""
        if job.experiment_id not in self._gathered:
            gather(session, self._client, job.experiment_id)
            self._gathered.add(job.experiment_id)

    def _run(self, session: Session, job: Job, position: JobPosition) -> MlflowRun:
        """The job's only run, looked for at the first touch; a position in another run counts for nothing.

        A run that is there stays where it is: of several experiments that are the job's, the rebuild of another job
        may have chosen another one since. Looked for after the experiment, which brings deleted runs back with it.
        """
        if job.id not in self._runs:
            run = MlflowRun.find_or_create(
                self._client,
                home_of(session, self._client, job.experiment_id),
                tag=_tag(job),
                known=job.mlflow_run_id,
                name=job.name,
                started_at=job.started_at or job.created_at,
                anew=REBUILD in position.value,
            )
            job.mlflow_run_id = run.id
            session.commit()
            self._runs[job.id] = run
        run = self._runs[job.id]
        where = {RUN_ID: run.id, HOME: run.experiment}
        if position.value.get(RUN_ID) != run.id:
            tell_of_parent(session, run.id, Job.source_job_id == job.id)  # before it is known that they were told
            position.restart(**where)
        elif HOME not in position.value:
            position.keep(**where)
        return run


def _tag(job: Job) -> tuple[str, str]:
    return JOB_TAG, str(job.id)


def _durable_step(session: Session, job_id: UUID) -> int:
    """The step that the newest checkpoint covers; -1: there is none."""
    newest = select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job_id, Checkpoint.kind != "backbone")
    step = session.scalar(newest)
    return -1 if step is None else step
