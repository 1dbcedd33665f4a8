"""What users ask of a job that is there: cancel, pause, resume, retry, rebuild its MLflow run."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.admission.allowances import refuse_priority, take_room
from service.api import audit
from service.api.auth import CallerDep
from service.api.deps import SessionDep, SettingsDep, find_job
from service.api.idempotency import IdempotencyKeyDep, remember, replayed
from service.api.ownership import OwnJobDep
from service.api.presentation import ROOT, job_view
from service.api.problems import Problem, responses
from service.api.schemas import JobView
from service.ledger import jobs as ledger
from service.ledger import requests
from service.ledger.moves import lock_job
from service.ledger.states import JobState
from service.recording import NothingRecorded, request_rebuild

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])


def _responses(unchanged: str, *codes: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": JobView, "description": unchanged}, **responses("not-the-owner", "not-found", *codes)}


@router.post(
    ":cancel",
    operation_id="cancel_job",
    status_code=202,
    responses=_responses("The job had ended before; nothing was changed"),
)
def cancel(
    job: OwnJobDep, session: SessionDep, settings: SettingsDep, caller: CallerDep, response: Response
) -> JobView:
    """Cancel a job: at once if it is not running, else its trainer is told to stop."""
    if JobState(lock_job(session, job.id).state).terminal:
        response.status_code = 200
    return job_view(session, settings, requests.request_cancel(session, job.id, actor=caller.name), caller)


@router.post(
    ":pause",
    operation_id="pause_job",
    status_code=202,
    responses=_responses("The job was paused before; nothing was changed", "illegal-verb"),
)
def pause(job: OwnJobDep, session: SessionDep, settings: SettingsDep, caller: CallerDep, response: Response) -> JobView:
    """Pause a job: at once if it is not running, else its trainer writes a checkpoint and frees the slots first."""
    if lock_job(session, job.id).state == JobState.PAUSED:
        response.status_code = 200
    return job_view(session, settings, requests.request_pause(session, job.id, actor=caller.name), caller)


@router.post(
    ":resume",
    operation_id="resume_job",
    status_code=202,
    responses=responses("not-the-owner", "not-found", "illegal-verb"),
)
def resume(job: OwnJobDep, session: SessionDep, settings: SettingsDep, caller: CallerDep) -> JobView:
    """Have a paused job go on from its newest checkpoint: it is queued again. A pause under way is withdrawn."""
    return job_view(session, settings, requests.resume(session, job.id, actor=caller.name), caller)


@router.post(
    ":retry",
    operation_id="retry_job",
    status_code=202,
    responses={
        202: {
            "description": "The new job",
            "headers": {
                "Location": {"required": True, "schema": {"type": "string"}, "description": "The new job"},
                "Idempotency-Replayed": {"schema": {"const": "true"}, "description": "The key made it before"},
            },
        },
        **responses(
            "not-the-owner", "not-found", "illegal-verb", "dependency-failed", "submit-in-progress",
            "too-many-open-jobs", "invalid-spec", "invalid-parameters", "idempotency-key-reused",
        ),
    },
)  # fmt: skip
def retry(
    job: OwnJobDep,
    session: SessionDep,
    settings: SettingsDep,
    caller: CallerDep,
    response: Response,
    key: IdempotencyKeyDep,
) -> JobView:
    """Make a new job of the same spec in place of one that failed or was cancelled; the answer is the new job.

    It starts from the old one's newest valid checkpoint. Without an Idempotency-Key every request makes a job.
    """
    request = {"job": str(job.id)}
    made = key and replayed(session, owner=caller.user, route="POST /jobs:retry", key=key, request=request)
    if made:
        response.headers["Idempotency-Replayed"] = "true"
        new = find_job(session, made)
    else:
        take_room(session, caller, settings, 1)
        refuse_priority(job, caller, settings)
        new = ledger.retry(session, job.id, actor=caller.name, user=caller.user)
        if key:
            remember(
                session, owner=caller.user, route="POST /jobs:retry", key=key, request=request, resource=str(new.id)
            )
    response.headers["Location"] = f"{ROOT}/jobs/{new.id}"
    return job_view(session, settings, new, caller)


@router.post(
    ":rebuild-mlflow",
    operation_id="rebuild_mlflow",
    status_code=202,
    responses=responses("not-the-owner", "not-found", "nothing-recorded"),
)
def rebuild_mlflow(
    request: Request, job: OwnJobDep, session: SessionDep, settings: SettingsDep, caller: CallerDep
) -> JobView:
    """Have the job's MLflow run deleted and made again from the run database and the run directory, in any state.

    `recording.mlflow` is `complete` again when all of it is there.
    """
    try:
        rebuilt = request_rebuild(session, job.id, actor=caller.name)
    except NothingRecorded as error:
        raise Problem("nothing-recorded", str(error)) from None
    audit.record(session, request, caller, audit.MLFLOW_REBUILT, str(job.id), {"name": job.name})
    return job_view(session, settings, rebuilt, caller)
