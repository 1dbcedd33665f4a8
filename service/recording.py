"""What workers and service agree on in recording: the targets, how a job stands in MLflow, how it is rebuilt there."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.database.tables import Experiment, Job, Watermark
from service.ledger import events
from service.ledger.moves import lock_job

POSTGRES = "postgres"
MLFLOW = "mlflow"
JOB_TAG = "barlow.job_id"
"""The tag by which a job's MLflow run is found."""
EXPERIMENT_TAG = "barlow.experiment_id"
"""The tag that says which of our experiments an MLflow experiment is, or a run that stands above those of its jobs."""
REBUILD = "rebuild"
"""The key in a watermark's position that says: what MLflow has of the job is to be deleted first. In that of an
experiment: all that its run says is to be said again. Names the request."""

RUN_ID = "run_id"
"""The key in a watermark's position for the run that it speaks of."""
HOME = "experiment"
"""And the id of the MLflow experiment that this run is in; versions of before did not say."""


def homes(session: Session, jobs: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    """The ids of the MLflow experiments that the runs of jobs are in, as far as they are known: a run stays where it
    was begun when another experiment has been chosen for its job's one."""
    position = Watermark.position
    known = select(Job.id, position[HOME].astext).join(Watermark, Watermark.job_id == Job.id)
    of = (Job.id.in_(jobs), Watermark.target == MLFLOW, position[RUN_ID].astext == Job.mlflow_run_id)
    return dict(session.execute(known.where(*of, position.has_key(HOME))).all())


class NothingRecorded(ValueError):
    """MLflow holds nothing of the job that could be built again."""


def request_rebuild(session: Session, job_id: uuid.UUID, *, actor: str) -> Job:
    """Have the job's MLflow run deleted and made again from Postgres and the run directory, whatever the job's state.

    Raises:
        service.ledger.errors.NotFound: there is no such job.
        NothingRecorded: the job was never recorded for MLflow.
    """
    job = lock_job(session, job_id)
    if not rebuild(session, job, actor=actor, why="requested"):
        raise NothingRecorded(
            f"job {job.name} was never recorded for MLflow: it has not started yet, or it ran on a worker without "
            "MLflow; set BARLOW_MLFLOW_URL for the workers before a job starts"
        )
    return job


def rebuild(session: Session, job: Job, *, actor: str, why: str) -> bool:
    """Mark a locked job's MLflow run as to be made again; False if the job is not recorded there.

    The new position ends whatever export is under way: it can no longer move the watermark.
    """
    marked = session.scalar(
        update(Watermark)
        .where(Watermark.job_id == job.id, Watermark.target == MLFLOW)
        .values(position={REBUILD: str(uuid.uuid4())}, complete=False, updated_at=func.clock_timestamp())
        .returning(Watermark.job_id)
        .execution_options(synchronize_session=False)
    )
    if marked is None:
        return False
    known = Experiment.mlflow_run_id
    session.execute(
        update(Experiment)
        .where(Experiment.id == job.experiment_id, Experiment.varies)
        .values(mlflow_told=func.jsonb_build_object(RUN_ID, known, REBUILD, str(uuid.uuid4())))
        .execution_options(synchronize_session=False)
    )
    events.append(session, job, "mlflow_rebuild_requested", actor=actor, payload={"why": why})
    return True
