"""What the API answers of what a job has recorded. Times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class MetricView(BaseModel):
    """One point of one metric."""

    key: str
    step: int
    value: float
    at: datetime
    attempt: int


class CorrelationLinks(BaseModel):
    """The heatmap, and the arrays behind it."""

    png: str
    npz: str


class CorrelationView(BaseModel):
    """One cross-correlation record."""

    step: int
    epoch: int | None
    dim: int
    summary: dict[str, Any]
    at: datetime
    attempt: int
    links: CorrelationLinks


class ImageLinks(BaseModel):
    """The picture."""

    png: str


class ImageView(BaseModel):
    """One picture: `correlation`, a heatmap; `views`, what the augmentation makes of the first batch; `spectrum`,
    `detections`."""

    key: str
    step: int
    at: datetime
    attempt: int
    links: ImageLinks


class CheckpointView(BaseModel):
    """One checkpoint, or the exported backbone.

    `kind` is why it is kept: `milestone` before `best` before `last`; a deleted one keeps the last it had. `score` is
    what `run.checkpoint.best_by` names.
    """

    id: int
    attempt: int
    step: int
    epoch: int | None
    kind: str
    score: float | None
    sha256: str
    bytes: int
    created_at: datetime
    deleted_at: datetime | None
    download: str | None
