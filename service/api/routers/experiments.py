"""Experiments: named groups of jobs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from fastapi import APIRouter, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.admission.submission import submit_experiment
from service.api import examples
from service.api.auth import CallerDep
from service.api.deps import ExperimentDep, SessionDep, SettingsDep, find_experiment
from service.api.idempotency import IdempotencyKeyDep, remember, replayed
from service.api.lanes import ExperimentBodyDep, ExperimentSessionDep
from service.api.page_views import Page
from service.api.pages import LARGEST_PAGE, PageSize, PageToken, read_token, write_token
from service.api.presentation import ROOT, mlflow_page
from service.api.problems import responses
from service.api.schemas import ExperimentDetail, ExperimentView, JobBrief
from service.database.tables import Experiment, Job
from service.settings import Settings

router = APIRouter(tags=["experiments"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ExperimentSpec"},
                "example": examples.EXPERIMENT,
            }
        },
    }
}


@router.post(
    "/experiments",
    operation_id="submit_experiment",
    status_code=201,
    openapi_extra=_BODY,
    responses=responses(
        "malformed-json", "name-taken", "too-many-open-jobs", "submit-in-progress", "body-too-large",
        "unsupported-media-type", "invalid-spec", "invalid-parameters", "idempotency-key-reused", "too-many-requests",
    ),
)  # fmt: skip
def submit(
    body: ExperimentBodyDep,
    session: ExperimentSessionDep,
    settings: SettingsDep,
    caller: CallerDep,
    response: Response,
    key: IdempotencyKeyDep,
) -> ExperimentDetail:
    """Submit all jobs of an experiment, or none. A job that names another one of it waits for that one."""
    made = key and replayed(session, owner=caller.user, route="POST /experiments", key=key, request=body.body)
    if made:
        response.headers["Idempotency-Replayed"] = "true"
        experiment = find_experiment(session, made)
    else:
        experiment = submit_experiment(session, settings, body, caller=caller)
        if key:
            resource = str(experiment.id)
            remember(
                session, owner=caller.user, route="POST /experiments", key=key, request=body.body, resource=resource
            )
    response.headers["Location"] = f"{ROOT}/experiments/{experiment.id}"
    return _detail(session, settings, experiment)


@router.get("/experiments", operation_id="list_experiments", responses=responses("invalid-parameters"))
def list_experiments(
    session: SessionDep, settings: SettingsDep, page_size: PageSize = 50, page_token: PageToken = None
) -> Page[ExperimentView]:
    """List experiments, newest first."""
    query = select(Experiment)
    after = read_token(page_token, uuid.UUID)
    if after is not None:
        query = query.where(Experiment.id < after[0])
    size = min(page_size, LARGEST_PAGE)
    found = session.scalars(query.order_by(Experiment.id.desc()).limit(size + 1)).all()
    shown = found[:size]
    states = _states(session, [experiment.id for experiment in shown])
    return Page[ExperimentView](
        items=[_view(settings, experiment, states.get(experiment.id, {})) for experiment in shown],
        next_page_token=write_token(shown[-1].id) if len(found) > size else None,
    )


@router.get("/experiments/{experiment_id}", operation_id="get_experiment", responses=responses("not-found"))
def get_experiment(experiment: ExperimentDep, session: SessionDep, settings: SettingsDep) -> ExperimentDetail:
    """Show an experiment with its jobs, oldest first."""
    return _detail(session, settings, experiment)


def _detail(session: Session, settings: Settings, experiment: Experiment) -> ExperimentDetail:
    brief = select(Job.id, Job.name, Job.kind, Job.state).where(Job.experiment_id == experiment.id)
    states = _states(session, [experiment.id]).get(experiment.id, {})
    return ExperimentDetail(
        **dict(_view(settings, experiment, states)),
        jobs=[JobBrief.model_validate(job, from_attributes=True) for job in session.execute(brief.order_by(Job.id))],
    )


def _view(settings: Settings, experiment: Experiment, states: dict[str, int]) -> ExperimentView:
    return ExperimentView(
        id=experiment.id,
        name=experiment.name,
        created_at=experiment.created_at,
        states=states,
        mlflow=mlflow_page(settings, experiment.mlflow_experiment_id),
    )


def _states(session: Session, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, dict[str, int]]:
    counted = select(Job.experiment_id, Job.state, func.count()).where(Job.experiment_id.in_(ids))
    out: dict[uuid.UUID, dict[str, int]] = {}
    for experiment_id, state, count in session.execute(counted.group_by(Job.experiment_id, Job.state)):
        out.setdefault(experiment_id, {})[state] = count
    return out
