"""What the API answers of what a job has recorded. Times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class MetricView(BaseModel):
    """One point of one metric."""

    key: str = Field(description="Its name")
    step: int = Field(description="Update that it is of; 0 is before the first")
    value: float = Field(description="The number")
    at: datetime = Field(description="When it was told")
    attempt: int = Field(description="That told it")


class CorrelationLinks(BaseModel):
    """The heatmap, and the arrays behind it."""

    png: str = Field(description="The heatmap")
    npz: str = Field(description="The arrays")


class CorrelationView(BaseModel):
    """One cross-correlation record."""

    step: int = Field(description="Update that it is of; 0 is before the first")
    epoch: int | None = Field(description="Epoch of that update")
    dim: int = Field(description="Features, which are rows and columns of the matrix")
    summary: dict[str, Any] = Field(description="Its numbers, by name")
    at: datetime = Field(description="When it was told")
    attempt: int = Field(description="That told it")
    links: CorrelationLinks = Field(description="Where its files are")


class ImageLinks(BaseModel):
    """The picture."""

    png: str = Field(description="The file")


class ImageView(BaseModel):
    """One picture: `correlation`, a heatmap; `views`, what the augmentation makes of the first batch; `spectrum`,
    `detections`."""

    key: str = Field(description="What it shows")
    step: int = Field(description="Update that it is of; 0 is before the first")
    at: datetime = Field(description="When it was told")
    attempt: int = Field(description="That told it")
    links: ImageLinks = Field(description="Where its file is")


class CheckpointView(BaseModel):
    """One checkpoint, or the exported backbone.

    `kind` is why it is kept: `milestone` before `best` before `last`; a deleted one keeps the last it had. `score` is
    what `run.checkpoint.best_by` names.
    """

    id: int = Field(description="For its download")
    attempt: int = Field(description="That wrote it")
    step: int = Field(description="Update after which it was written")
    epoch: int | None = Field(description="Epoch of that update")
    kind: str = Field(description="`last`, `best`, `milestone`, or `backbone`")
    score: float | None = Field(description="What `run.checkpoint.best_by` names")
    sha256: str = Field(description="Of its file, as hex")
    bytes: int = Field(description="Size of its file")
    created_at: datetime = Field(description="When it was written")
    deleted_at: datetime | None = Field(description="When its file was deleted")
    download: str | None = Field(description="Where its file is; null once it is deleted")
