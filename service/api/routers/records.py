"""What a job has recorded: metrics, correlation records, pictures, checkpoints."""

from __future__ import annotations

import base64
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from barlow_lab.run_folder import BACKBONE_WEIGHTS, CHECKPOINT_STATE
from service.api.deps import JobDep, SessionDep, SettingsDep
from service.api.files import confined, confined_file
from service.api.page_views import Page
from service.api.pages import LARGEST_PAGE, PageSize, PageToken, read_token, write_token
from service.api.presentation import ROOT
from service.api.problems import Problem, responses
from service.api.record_views import (
    CheckpointView,
    CorrelationLinks,
    CorrelationView,
    ImageLinks,
    ImageView,
    MetricView,
)
from service.database.pictures import pictures_of
from service.database.tables import Checkpoint, Correlation, Job, Metric

router = APIRouter(prefix="/jobs/{job_id}", tags=["records"])

Step = Annotated[int, Path(ge=0, lt=2**63, description="Step of the record, as the list of them says")]


@router.get("/metrics", operation_id="list_metrics", responses=responses("not-found", "invalid-parameters"))
def list_metrics(
    job: JobDep,
    session: SessionDep,
    key: Annotated[list[str] | None, Query(description="Only these metrics")] = None,
    from_step: Annotated[int, Query(ge=0, lt=2**63, description="Only points at or after this step")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Points of a page")] = 1000,
    page_token: PageToken = None,
) -> Page[MetricView]:
    """List metric points: by name, then by step."""
    query = select(Metric).where(Metric.job_id == job.id, Metric.step >= from_step)
    if key:
        query = query.where(Metric.key.in_(key))
    after = read_token(page_token, str, int)
    if after is not None:
        query = query.where(tuple_(Metric.key, Metric.step) > tuple_(*after))
    points = session.scalars(query.order_by(Metric.key, Metric.step).limit(limit + 1)).all()
    shown = points[:limit]
    return Page[MetricView](
        items=[MetricView.model_validate(point, from_attributes=True) for point in shown],
        next_page_token=write_token(shown[-1].key, shown[-1].step) if len(points) > limit else None,
    )


@router.get("/correlations", operation_id="list_correlations", responses=responses("not-found", "invalid-parameters"))
def list_correlations(
    job: JobDep, session: SessionDep, page_size: PageSize = 50, page_token: PageToken = None
) -> Page[CorrelationView]:
    """List the cross-correlation records of a job, by step."""
    query = select(Correlation).where(Correlation.job_id == job.id)
    after = read_token(page_token, int)
    if after is not None:
        query = query.where(Correlation.step > after[0])
    size = min(page_size, LARGEST_PAGE)
    records = session.scalars(query.order_by(Correlation.step).limit(size + 1)).all()
    shown = records[:size]
    return Page[CorrelationView](
        items=[_correlation_view(job, record) for record in shown],
        next_page_token=write_token(shown[-1].step) if len(records) > size else None,
    )


@router.get(
    "/correlations/{step}.png",
    operation_id="get_correlation_image",
    response_class=FileResponse,
    responses={200: {"content": {"image/png": {}}, "description": "The heatmap"}, **responses("not-found")},
)
def get_correlation_image(job: JobDep, step: Step, session: SessionDep, settings: SettingsDep) -> FileResponse:
    """The heatmap of one record."""
    record = _correlation(session, job, step)
    return FileResponse(confined_file(settings, job.id, record.image), media_type="image/png")


@router.get(
    "/correlations/{step}.npz",
    operation_id="get_correlation_arrays",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "NumPy arrays"},
        **responses("not-found"),
    },
)
def get_correlation_arrays(job: JobDep, step: Step, session: SessionDep, settings: SettingsDep) -> FileResponse:
    """The arrays of one record, for numpy.load."""
    record = _correlation(session, job, step)
    path = confined_file(settings, job.id, record.file)
    return FileResponse(path, media_type="application/octet-stream", filename=f"{job.name}-step-{step}.npz")


@router.get("/images", operation_id="list_images", responses=responses("not-found", "invalid-parameters"))
def list_images(
    job: JobDep,
    session: SessionDep,
    key: Annotated[list[str] | None, Query(description="Only these pictures")] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Page[ImageView]:
    """List every picture of a job: by key, then by step. The heatmaps are among them, as `correlation`."""
    seen = pictures_of(job.id)
    query = select(seen)
    if key:
        query = query.where(seen.c.key.in_(key))
    after = read_token(page_token, str, int)
    if after is not None:
        query = query.where(tuple_(seen.c.key, seen.c.step) > tuple_(*after))
    size = min(page_size, LARGEST_PAGE)
    pictures = session.execute(query.order_by(seen.c.key, seen.c.step).limit(size + 1)).all()
    shown = pictures[:size]
    own = f"{ROOT}/jobs/{job.id}/images"
    return Page[ImageView](
        items=[
            ImageView(
                key=one.key,
                step=one.step,
                at=one.at,
                attempt=one.attempt,
                links=ImageLinks(png=f"{own}/{quote(one.key, safe='')}/{one.step}.png"),
            )
            for one in shown
        ],
        next_page_token=write_token(shown[-1].key, shown[-1].step) if len(pictures) > size else None,
    )


@router.get(
    "/images/{key}/{step}.png",
    operation_id="get_image",
    response_class=FileResponse,
    responses={200: {"content": {"image/png": {}}, "description": "The picture"}, **responses("not-found")},
)
def get_image(
    job: JobDep,
    key: Annotated[str, Path(description="As the list has it")],
    step: Step,
    session: SessionDep,
    settings: SettingsDep,
) -> FileResponse:
    """One picture."""
    seen = pictures_of(job.id)
    file = session.scalar(select(seen.c.file).where(seen.c.key == key, seen.c.step == step))
    if file is None:
        raise Problem("not-found", f"job {job.id} has no picture {key!r} of step {step}; /images lists what it has")
    return FileResponse(confined_file(settings, job.id, file), media_type="image/png")


@router.get("/checkpoints", operation_id="list_checkpoints", responses=responses("not-found", "invalid-parameters"))
def list_checkpoints(
    job: JobDep, session: SessionDep, page_size: PageSize = 50, page_token: PageToken = None
) -> Page[CheckpointView]:
    """List the checkpoints of a job and its exported backbone, oldest first, deleted ones too."""
    query = select(Checkpoint).where(Checkpoint.job_id == job.id)
    after = read_token(page_token, int)
    if after is not None:
        query = query.where(Checkpoint.id > after[0])
    size = min(page_size, LARGEST_PAGE)
    rows = session.scalars(query.order_by(Checkpoint.id).limit(size + 1)).all()
    shown = rows[:size]
    return Page[CheckpointView](
        items=[_checkpoint_view(job, row) for row in shown],
        next_page_token=write_token(shown[-1].id) if len(rows) > size else None,
    )


@router.get(
    "/checkpoints/{checkpoint_id}/download",
    operation_id="download_checkpoint",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "The file whose sha256 the list shows"},
        **responses("not-found", "deleted"),
    },
)
def download_checkpoint(
    job: JobDep,
    checkpoint_id: Annotated[int, Path(ge=0, lt=2**63, description="Its `id` in the list of checkpoints")],
    session: SessionDep,
    settings: SettingsDep,
) -> FileResponse:
    """The file of a checkpoint: `state.pt`, or `model.safetensors` of the exported backbone. Ranges are served."""
    row = session.get(Checkpoint, checkpoint_id)
    if row is None or row.job_id != job.id:
        raise Problem("not-found", f"job {job.id} has no checkpoint {checkpoint_id}")
    if row.deleted_at is not None:
        raise Problem("deleted", f"the checkpoint of step {row.step} was deleted at {row.deleted_at.isoformat()}")
    path = confined(settings, job.id, row.uri)
    if path.is_dir():
        inside = BACKBONE_WEIGHTS if row.kind == "backbone" else CHECKPOINT_STATE
        path = confined_file(settings, job.id, f"{row.uri}/{inside}")
    digest = base64.b64encode(bytes.fromhex(row.sha256)).decode()
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=f"{job.name}-step-{row.step}{path.suffix}",
        headers={"Repr-Digest": f"sha-256=:{digest}:"},
    )


def _correlation(session: Session, job: Job, step: int) -> Correlation:
    record = session.get(Correlation, (job.id, step))
    if record is None:
        raise Problem("not-found", f"job {job.id} has no correlation record of step {step}")
    return record


def _correlation_view(job: Job, record: Correlation) -> CorrelationView:
    own = f"{ROOT}/jobs/{job.id}/correlations/{record.step}"
    return CorrelationView(
        step=record.step,
        epoch=record.epoch,
        dim=record.dim,
        summary=record.summary,
        at=record.at,
        attempt=record.attempt,
        links=CorrelationLinks(png=f"{own}.png", npz=f"{own}.npz"),
    )


def _checkpoint_view(job: Job, row: Checkpoint) -> CheckpointView:
    there = row.deleted_at is None
    return CheckpointView(
        id=row.id,
        attempt=row.attempt,
        step=row.step,
        epoch=row.epoch,
        kind=row.kind,
        score=row.score,
        sha256=row.sha256,
        bytes=row.bytes,
        created_at=row.created_at,
        deleted_at=row.deleted_at,
        download=f"{ROOT}/jobs/{job.id}/checkpoints/{row.id}/download" if there else None,
    )
