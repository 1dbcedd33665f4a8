"""Jobs: submit, list, show, compare."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse
from psycopg.errors import QueryCanceled
from pydantic import AfterValidator, BeforeValidator
from sqlalchemy import ColumnElement, Select, String, cast, or_, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from barlow_lab.specs.common import Name
from barlow_lab.specs.kinds import KINDS
from service.admission.submission import planned_job, submit_job
from service.api import examples
from service.api.auth import CallerDep
from service.api.comparison import compare, compare_scores
from service.api.comparison_schemas import Comparison
from service.api.deps import JobDep, PageTurnDep, SessionDep, SettingsDep, find_experiment, find_job
from service.api.idempotency import IdempotencyKeyDep, remember, replayed
from service.api.lanes import JobBodyDep, JobSessionDep
from service.api.page_views import Page
from service.api.pages import LARGEST_PAGE, PageSize, PageToken, read_token, write_token
from service.api.presentation import ROOT, job_detail, job_view, job_views, plan_view
from service.api.problems import MATCH_PATTERN, Problem, invalid_parameter, responses
from service.api.schemas import Attempts, AttemptView, JobDetail, JobView, Plan
from service.callers import Caller
from service.comparison.plots.page import compare_page
from service.database.tables import Attempt, Job
from service.ledger.states import JobState
from service.settings import Settings

router = APIRouter(tags=["jobs"])


def _written_out(value: object) -> object:
    # A bare number would be read as seconds since 1970, or as milliseconds if it is large.
    if isinstance(value, str) and _MOMENT.match(value):
        return value
    raise ValueError(f"write a date, a time and its offset from UTC, for example {_EXAMPLE}")


def _with_offset(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"the offset from UTC is missing; write for example {_EXAMPLE}")
    return moment


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")
_EXAMPLE = "2026-01-31T12:00:00Z"
Moment = Annotated[datetime, BeforeValidator(_written_out), AfterValidator(_with_offset)]

LARGEST_EXPERIMENT = 500
"""Jobs of an experiment that any server compares as a whole: their specs and results are read for one answer."""

FEWEST_JOBS = 2
"""That are compared by their ids."""
PAGE_STATEMENT_SECONDS = 20
"""The longest that one statement for a page may take."""

_SUBMIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Spec"}, "examples": examples.JOBS},
        },
    }
}


@router.post(
    "/jobs",
    operation_id="submit_job",
    status_code=201,
    response_model=JobView | Plan,
    openapi_extra=_SUBMIT_BODY,
    responses={
        200: {"model": Plan, "description": "With validate_only: the plan"},
        **responses(
            "malformed-json", "name-taken", "too-many-open-jobs", "submit-in-progress", "body-too-large",
            "unsupported-media-type", "invalid-spec", "invalid-parameters", "idempotency-key-reused",
            "too-many-requests",
        ),
    },
)  # fmt: skip
def submit(
    body: JobBodyDep,
    session: JobSessionDep,
    settings: SettingsDep,
    caller: CallerDep,
    response: Response,
    key: IdempotencyKeyDep,
    experiment: Annotated[Name, Query(description="Experiment the job belongs to; made if it is new")] = "default",
    validate_only: Annotated[bool, Query(description="Answer the plan and create nothing; no key is used")] = False,
) -> JobView | Plan:
    """Submit a job: the bare spec in, the job out."""
    if validate_only:
        response.status_code = 200
        with planned_job(session, settings, body, experiment, caller=caller) as (job, needs):
            return plan_view(job_view(session, settings, job, caller), needs)
    request = {"experiment": experiment, "spec": body.body}
    made = key and replayed(session, owner=caller.user, route="POST /jobs", key=key, request=request)
    if made:
        response.headers["Idempotency-Replayed"] = "true"
        job = find_job(session, made)
    else:
        job = submit_job(session, settings, body, experiment, caller=caller)
        if key:
            remember(session, owner=caller.user, route="POST /jobs", key=key, request=request, resource=str(job.id))
    response.headers["Location"] = f"{ROOT}/jobs/{job.id}"
    return job_view(session, settings, job, caller)


@router.get("/jobs", operation_id="list_jobs", responses=responses("not-found", "invalid-parameters"))
def list_jobs(
    session: SessionDep,
    settings: SettingsDep,
    caller: CallerDep,
    state: Annotated[list[JobState] | None, Query(description="Any of these states")] = None,
    kind: Annotated[list[str] | None, Query(description=f"Any of these kinds: {', '.join(KINDS)}")] = None,
    experiment: Annotated[str | None, Query(max_length=100, description="Id or name of an experiment")] = None,
    user: Annotated[str | None, Query(max_length=100, description="Only jobs of this user")] = None,
    label: Annotated[list[str] | None, Query(description="KEY=VALUE; all of them")] = None,
    match: Annotated[
        str | None,
        Query(pattern=MATCH_PATTERN, description="A job's name, or the beginning or the end of its id"),
    ] = None,
    created_after: Annotated[Moment | None, Query(description="At or after; with its offset from UTC")] = None,
    created_before: Annotated[Moment | None, Query(description="Before; with its offset from UTC")] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Page[JobView]:
    """List jobs, newest first."""
    conditions: list[ColumnElement[bool]] = []
    if state:
        conditions.append(Job.state.in_(state))
    if kind:
        conditions.append(Job.kind.in_([_known_kind(name) for name in kind]))
    if user is not None:
        conditions.append(Job.user_name == user)
    if label:
        conditions.append(Job.labels.contains(dict(_label(item) for item in label)))
    if match:
        lowered = match.lower().replace("_", r"\_")
        as_text = cast(Job.id, String)
        conditions.append(or_(Job.name == match, as_text.like(f"{lowered}%"), as_text.like(f"%{lowered}")))
    if created_after:
        conditions.append(Job.created_at >= created_after)
    if created_before:
        conditions.append(Job.created_at < created_before)
    return _page(session, settings, caller, select(Job).where(*conditions), experiment, page_size, page_token)


@router.get("/jobs/{job_id}", operation_id="get_job", responses=responses("not-found"))
def get_job(job: JobDep, session: SessionDep, settings: SettingsDep, caller: CallerDep) -> JobDetail:
    """Show a job with its state, its progress and the newest point of each metric."""
    return job_detail(session, settings, job, caller)


@router.get("/jobs/{job_id}/attempts", operation_id="list_attempts", responses=responses("not-found"))
def list_attempts(job: JobDep, session: SessionDep) -> Attempts:
    """List the attempts of a job, oldest first."""
    rows = session.scalars(select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.number))
    return Attempts(items=[AttemptView.model_validate(row, from_attributes=True) for row in rows])


Jobs = Annotated[list[str] | None, Query(min_length=FEWEST_JOBS, max_length=20, description="Ids of jobs")]
OfExperiment = Annotated[
    str | None,
    Query(
        max_length=100,
        description=f"In place of jobs: id or name of an experiment, all of its jobs, {LARGEST_EXPERIMENT} at "
        "most, or as many as the server's BARLOW_MAX_EXPERIMENT_JOBS if that is more",
    ),
]


@router.get("/compare", operation_id="compare_jobs", responses=responses("not-found", "invalid-parameters"))
def compare_jobs(
    session: SessionDep, settings: SettingsDep, job: Jobs = None, experiment: OfExperiment = None
) -> Comparison:
    """Compare jobs: what they measured of which backbone beside what was published, and where their specs differ."""
    compared = _compared(session, settings, job, experiment)
    return compare(session, compared) if job is not None else compare_scores(session, compared)


@router.get(
    "/compare.html",
    operation_id="compare_jobs_page",
    response_class=HTMLResponse,
    responses={
        200: {"content": {"text/html": {}}, "description": "The page, some megabytes that need nothing else"},
        **responses("not-found", "invalid-parameters", "too-many-requests"),
    },
)
def compare_jobs_page(
    _: PageTurnDep, session: SessionDep, settings: SettingsDep, job: Jobs = None, experiment: OfExperiment = None
) -> HTMLResponse:
    """The same jobs as a page to look at: metrics over steps, spectra and correlation matrices, scores."""
    compared = _compared(session, settings, job, experiment)
    session.execute(text(f"SET LOCAL statement_timeout = '{PAGE_STATEMENT_SECONDS}s'"))
    try:
        page = compare_page(session, settings.runs_dir, compared, whole=job is None)
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        said = f"the run database takes more than {PAGE_STATEMENT_SECONDS} s for this page; compare some jobs by ids"
        raise Problem("unavailable", said, headers={"Retry-After": "10"}) from None
    return HTMLResponse(page.html, headers={"Content-Security-Policy": page.policy})


def _compared(session: Session, settings: Settings, job: list[str] | None, experiment: str | None) -> Sequence[Job]:
    """The jobs that are named, or all of the experiment."""
    if (job is None) == (experiment is None):
        raise invalid_parameter("job", "give either the ids of 2 to 20 jobs or an experiment")
    if job is not None:
        found = {one.id: one for one in (find_job(session, given) for given in job)}
        if len(found) < FEWEST_JOBS:
            raise invalid_parameter("job", "the ids are of one job; give those of 2 to 20 jobs")
        return list(found.values())
    assert experiment is not None
    of_it = select(Job).where(Job.experiment_id == find_experiment(session, experiment).id).order_by(Job.id)
    largest = max(LARGEST_EXPERIMENT, settings.max_experiment_jobs)
    jobs = session.scalars(of_it.limit(largest + 1)).all()
    if len(jobs) > largest:
        remedy = "compare up to 20 of them by their ids, or raise BARLOW_MAX_EXPERIMENT_JOBS"
        said = f"it has more than {largest} jobs; {remedy}"
        raise invalid_parameter("experiment", said)
    return jobs


def _page(
    session: Session,
    settings: SettingsDep,
    caller: Caller,
    query: Select[Job],
    experiment: str | None,
    page_size: int,
    page_token: str | None,
) -> Page[Any]:
    if experiment is not None:
        query = query.where(Job.experiment_id == find_experiment(session, experiment).id)
    after = read_token(page_token, uuid.UUID)
    if after is not None:
        query = query.where(Job.id < after[0])
    size = min(page_size, LARGEST_PAGE)
    # Ids are made of the time (uuidv7), so the newest is the largest.
    jobs = session.scalars(query.order_by(Job.id.desc()).limit(size + 1)).all()
    more = len(jobs) > size
    items = job_views(session, settings, jobs[:size], caller)
    return Page[JobView](items=items, next_page_token=write_token(jobs[size - 1].id) if more else None)


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise invalid_parameter("kind", f"unknown kind {kind[:100]!r}; use one of {', '.join(KINDS)}")
    return kind


def _label(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise invalid_parameter("label", f"{item[:100]!r} is not KEY=VALUE")
    return key, value
