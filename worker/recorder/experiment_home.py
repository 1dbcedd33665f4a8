"""Which MLflow experiment is one of ours: looked for there, and stored."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database.tables import Experiment, Job
from worker.recorder.mlflow_experiment import MlflowExperiment
from worker.recorder.mlflow_run import jobs_in


def home_of(session: Session, client: Any, experiment_id: UUID) -> str:
    """The id of the experiment there, made if need be."""
    ours = session.get_one(Experiment, experiment_id)
    ours.mlflow_experiment_id = found = _there(session, client, ours).find_or_create(ours.mlflow_experiment_id)
    session.commit()
    return found


def gather(session: Session, client: Any, experiment_id: UUID) -> None:
    """Make one of several MLflow experiments that are ours; runs in the others stay until they are rebuilt."""
    ours = session.get_one(Experiment, experiment_id)
    ours.mlflow_experiment_id = _there(session, client, ours).gather(ours.mlflow_experiment_id)
    session.commit()


def _there(session: Session, client: Any, ours: Experiment) -> MlflowExperiment:
    def owners(mlflow_id: str) -> set[UUID]:
        jobs = jobs_in(client, mlflow_id)
        return set(session.scalars(select(Job.experiment_id).where(Job.id.in_(jobs)).distinct()))

    return MlflowExperiment(client, ours.id, ours.name, owners)
