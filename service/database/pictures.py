"""Every picture of a job, whatever it was drawn for: heatmaps of correlation records, views, detections."""

from __future__ import annotations

import uuid

from sqlalchemy import Subquery, literal, select, union_all

from service.database.tables import Correlation, Image

HEATMAP = "correlation"
"""The key under which the heatmaps stand beside the other pictures."""


def pictures_of(job_id: uuid.UUID) -> Subquery:
    """Rows of key, step, at, attempt and file; `file` is relative to the job's run directory. To select from."""
    key, file = literal(HEATMAP).label("key"), Correlation.image.label("file")
    heatmaps = select(key, Correlation.step, Correlation.at, Correlation.attempt, file).where(
        Correlation.job_id == job_id
    )
    others = select(Image.key, Image.step, Image.at, Image.attempt, Image.file).where(Image.job_id == job_id)
    return union_all(heatmaps, others).subquery()
