"""Which run stands above that of a job in MLflow: experiment, pretraining, evaluation."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from barlow_lab.specs import open_stored
from service.database.tables import Experiment, Job, Watermark
from service.recording import MLFLOW
from worker.recorder.position import FILES


def parent_of(session: Session, job: Job) -> str | None:
    """The run of the job that an evaluation takes its backbone from; of what makes a backbone, or takes none of a job,
    that of its experiment, if it varies."""
    source = None if job.source_job_id is None else session.get_one(Job, job.source_job_id)
    if source is None or open_stored(job.spec).backbone_made is not None:
        experiment = session.get_one(Experiment, job.experiment_id)
        if experiment.varies:
            return experiment.mlflow_run_id
    return None if source is None else source.mlflow_run_id


def tell_of_parent(session: Session, run_id: str, *children: ColumnElement[bool]) -> None:
    """Have these jobs look again at which run is above theirs.

    The changed position overtakes an export that has read the former parent already; files that were sent are not sent
    again.
    """
    told = Watermark.position.op("-")(FILES).op("||")(func.jsonb_build_object("parent", run_id))
    these = Watermark.job_id.in_(select(Job.id).where(*children))
    statement = update(Watermark).where(Watermark.target == MLFLOW, these)
    session.execute(statement.values(position=told.cast(JSONB), complete=False))
    session.commit()
