"""Rows as answers. What a list of jobs needs is read in one query per table, not per job."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from barlow_lab.specs import open_stored
from service.addresses import without_user
from service.admission.plan import Needs
from service.api.ownership import may_change
from service.api.schemas import (
    JobDetail,
    JobLinks,
    JobView,
    JobWarning,
    LastMetric,
    Memory,
    NodeFit,
    Parameters,
    Plan,
    Progress,
    Reason,
    Recording,
)
from service.callers import Caller
from service.database.tables import Attempt, Experiment, Job, Watermark
from service.ledger import reasons, warnings
from service.ledger.moves import verbs_of
from service.ledger.states import JobState
from service.recording import MLFLOW, POSTGRES, homes
from service.settings import Settings

ROOT = "/api/v1"
SHOWN_WARNINGS = 10


def job_views(session: Session, settings: Settings, jobs: Sequence[Job], caller: Caller) -> list[JobView]:
    """The jobs as answers for a caller, in their order."""
    ids = [job.id for job in jobs]
    wanted = {job.experiment_id for job in jobs}
    experiments = {e.id: e for e in session.scalars(select(Experiment).where(Experiment.id.in_(wanted)))}
    counts = select(Attempt.job_id, func.count()).where(Attempt.job_id.in_(ids)).group_by(Attempt.job_id)
    attempts = dict(session.execute(counts).all())
    marks = select(Watermark.job_id, Watermark.target, Watermark.complete).where(Watermark.job_id.in_(ids))
    recorded = {(job_id, target): complete for job_id, target, complete in session.execute(marks)}
    found = homes(session, ids)
    retries = _retries(session, ids)
    places = _places(session, [job.id for job in jobs if job.state == JobState.QUEUED])
    return [
        JobView(
            id=job.id,
            experiment=experiments[job.experiment_id].name,
            name=job.name,
            kind=job.kind,
            submitted_by=job.user_name,
            state=JobState(job.state),
            reason=reason_view(job),
            place=places.get(job.id),
            cancel_requested=job.cancel_requested_at is not None,
            pause_requested=job.pause_requested_at is not None,
            verbs=sorted(verbs_of(job)) if may_change(caller, settings, job) else [],
            goes_on=open_stored(job.spec).goes_on,
            retry_of=job.retry_of,
            retries=retries.get(job.id, []),
            progress=None if job.progress is None else Progress.model_validate(job.progress),
            result=job.result,
            error=job.error,
            labels=job.labels,
            spec=job.spec,
            spec_digest=job.spec_digest,
            slots=job.slots,
            source_job=job.source_job_id,
            after=job.after,
            attempts=attempts.get(job.id, 0),
            recording=_recording(settings, job, recorded),
            created_at=job.created_at,
            queued_at=job.queued_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            links=_links(settings, job, found.get(job.id) or experiments[job.experiment_id].mlflow_experiment_id),
        )
        for job in jobs
    ]


def job_view(session: Session, settings: Settings, job: Job, caller: Caller) -> JobView:
    """One job as an answer for a caller."""
    return job_views(session, settings, [job], caller)[0]


def job_detail(session: Session, settings: Settings, job: Job, caller: Caller) -> JobDetail:
    """One job with the newest point of each metric, and what it has warned of."""
    said = list(warnings.of_job(session, job.id))
    return JobDetail(
        **dict(job_view(session, settings, job, caller)),
        last_metrics=last_metrics(session, job.id),
        warnings=[JobWarning(message=one.message, times=one.times, at=one.at) for one in said[:SHOWN_WARNINGS]],
        more_warnings=max(0, len(said) - SHOWN_WARNINGS),
    )


def plan_view(view: JobView, needs: Needs) -> Plan:
    """What a submit would do: make this job, which needs so much."""
    memory = needs.memory
    return Plan(
        kind=view.kind,
        spec=view.spec,
        spec_digest=view.spec_digest,
        slots=view.slots,
        state=view.state,
        reason=view.reason,
        place=view.place,
        parameters=None if needs.parameters is None else Parameters(**asdict(needs.parameters)),
        memory=None if memory is None else Memory(**asdict(memory), total=memory.total, formula=needs.formula),
        images=needs.images,
        steps_per_epoch=needs.steps_per_epoch,
        steps=needs.steps,
        fits=[NodeFit(**asdict(fit)) for fit in needs.fits],
    )


def reason_view(job: Job) -> Reason | None:
    """Why the job is where it is."""
    if job.reason_code is None:
        return None
    data = job.reason or {}
    return Reason(code=job.reason_code, data=data, words=reasons.words(job.reason_code, data))


def last_metrics(session: Session, job_id: uuid.UUID) -> dict[str, LastMetric]:
    """The newest point of each metric: two index look-ups per metric, however long the run."""
    rows = session.execute(
        text(
            """
            WITH RECURSIVE keys (key) AS (
                SELECT min(key) FROM metrics WHERE job_id = :job
                UNION ALL
                SELECT (SELECT min(key) FROM metrics WHERE job_id = :job AND metrics.key > keys.key)
                FROM keys WHERE keys.key IS NOT NULL
            )
            SELECT keys.key, newest.step, newest.value
            FROM keys CROSS JOIN LATERAL (
                SELECT step, value FROM metrics
                WHERE job_id = :job AND metrics.key = keys.key ORDER BY step DESC LIMIT 1
            ) AS newest
            """
        ),
        {"job": job_id},
    )
    return {key: LastMetric(step=step, value=value) for key, step, value in rows}


def mlflow_base(settings: Settings) -> str | None:
    """MLflow's address, as a browser reaches it, without a slash at its end; None: there is none."""
    base = settings.mlflow_public_url or settings.mlflow_url
    # The worker's address may have a password in it, which is none of its readers'.
    return None if base is None else without_user(base)[0].rstrip("/")


def mlflow_page(settings: Settings, experiment_id: str | None, run_id: str | None = None) -> str | None:
    """The page of an MLflow experiment or of one run in it, as a browser reaches it; None until it exists."""
    base = mlflow_base(settings)
    if base is None or experiment_id is None:
        return None
    page = f"{base}/#/experiments/{experiment_id}"
    # MLflow opens on its pages for language models unless it is told otherwise.
    return f"{page}/runs{'' if run_id is None else f'/{run_id}'}?workflowType=machine_learning"


def _places(session: Session, queued: Iterable[uuid.UUID]) -> dict[uuid.UUID, int]:
    wanted = list(queued)
    if not wanted:
        return {}
    place = func.row_number().over(order_by=(Job.order_key, Job.id)).label("place")
    queue = select(Job.id, place).where(Job.state == JobState.QUEUED).subquery()
    return dict(session.execute(select(queue.c.id, queue.c.place).where(queue.c.id.in_(wanted))).all())


def _retries(session: Session, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[uuid.UUID]]:
    out: dict[uuid.UUID, list[uuid.UUID]] = {}
    for job in session.execute(select(Job.id, Job.retry_of).where(Job.retry_of.in_(ids)).order_by(Job.id)):
        out.setdefault(job.retry_of, []).append(job.id)
    return out


def _recording(settings: Settings, job: Job, recorded: dict[tuple[uuid.UUID, str], bool]) -> Recording:
    # Recording begins when a worker accepts an attempt. A job that ended before has written nothing, also where an
    # attempt of it was placed and taken back: nothing is missing.
    nothing = (job.id, POSTGRES) not in recorded and JobState(job.state).terminal
    absent = "pending" if settings.mlflow_url else "off"
    return Recording(
        postgres="complete" if nothing or recorded.get((job.id, POSTGRES)) else "pending",
        mlflow="complete" if (nothing and absent == "pending") or recorded.get((job.id, MLFLOW)) else absent,
    )


def _links(settings: Settings, job: Job, home: str | None) -> JobLinks:
    own = f"{ROOT}/jobs/{job.id}"
    return JobLinks(
        self=own,
        experiment=f"{ROOT}/experiments/{job.experiment_id}",
        attempts=f"{own}/attempts",
        events=f"{own}/events",
        logs=f"{own}/logs",
        metrics=f"{own}/metrics",
        correlations=f"{own}/correlations",
        images=f"{own}/images",
        checkpoints=f"{own}/checkpoints",
        mlflow=mlflow_page(settings, home, job.mlflow_run_id) if job.mlflow_run_id else None,
        retry_of=None if job.retry_of is None else f"{ROOT}/jobs/{job.retry_of}",
    )
