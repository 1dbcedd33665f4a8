"""What evaluations measured, for a picture: of each backbone its scores, their mean and their deviation."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from barlow_lab.specs.protocols import shown_protocol
from service.comparison.lined_up import LinedUp
from service.comparison.models import Cell, ScoreRow
from service.comparison.plots.curves import rounded

MOST_BACKBONES = 40
"""In one picture."""


def scores(lined: LinedUp) -> list[dict[str, Any]]:
    """For the page: by what was measured, the scores that count first, each backbone that was judged so."""
    single = {one.job: {score.name: score.last for score in one.scores} for one in lined.evaluations}
    return [_row(row, lined.backbones, single) for row in sorted(lined.scores, key=lambda row: not row.headline)]


def title(row: ScoreRow) -> str:
    """`top1, knn/1 on textures (k 200)`."""
    return f"{row.score}, {shown_protocol(row.protocol)} on {row.data}" + (f" ({row.variant})" if row.variant else "")


def _row(row: ScoreRow, backbones: Sequence[str], single: dict[uuid.UUID, dict[str, float]]) -> dict[str, Any]:
    judged = [(name, cell) for name, cell in zip(backbones, row.cells, strict=True) if cell is not None]
    return {
        "title": title(row),
        "score": row.score,
        "published": row.published,
        "left_out": max(0, len(judged) - MOST_BACKBONES),
        "backbones": [_cell(name, cell, row.score, single) for name, cell in judged[:MOST_BACKBONES]],
    }


def _cell(name: str, cell: Cell, score: str, single: dict[uuid.UUID, dict[str, float]]) -> dict[str, Any]:
    return {
        "name": name,
        "mean": rounded(cell.last),
        "deviation": None if cell.deviation is None else rounded(cell.deviation),
        "n": cell.n,
        "published": cell.published,
        "points": [rounded(single[job][score]) for job in cell.jobs],
    }
