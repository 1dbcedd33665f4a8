"""Metrics over steps, thinned to a bounded number of points."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Text, Uuid, cast, column, func, or_, select, true
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from barlow_lab.specs.kinds import KINDS
from service.comparison.plots.choice import Group
from service.database.tables import Metric

MOST_JOBS = 100
"""Jobs whose metrics are read."""
MOST_POINTS = 250
"""Of a line, but for the last one; less where there are many lines."""
ALL_POINTS = 300_000
_FEWEST_POINTS = 16
_DIGITS = 6
_UNITS = {"images_per_second": "images/s", "_seconds": "s", "_top1": "%", "_top5": "%", "_ap": "%", "_11_point": "%"}


def curves(session: Session, groups: Sequence[Group]) -> dict[str, Any]:
    """For the page: lists of steps, of which lines share some, and by metric its unit and its lines, each of a group's
    number, the seed, a list of steps and the values.

    Of a line with n points every k-th is kept, k a power of two, and the last: so seeds keep points at the same steps,
    even one that ended early.
    """
    place = {job.id: (number, job) for number, group in enumerate(groups) for job in group.jobs if job.started_at}
    chosen = list(place)[:MOST_JOBS]
    counted = (
        select(Metric.job_id, Metric.key, func.count())
        .where(Metric.job_id.in_(chosen))
        .group_by(Metric.job_id, Metric.key)
    )
    found = [_Line(*row) for row in session.execute(counted)]
    points = max(_FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, len(found))))
    steps: dict[tuple[int, ...], int] = {}
    metrics: dict[str, dict[str, Any]] = {}
    for (job_id, key), kept in _thinned(session, found, points).items():
        number, job = place[job_id]
        taken = tuple(step for step, _ in kept)
        line = [number, job.spec.get("seed", 0), steps.setdefault(taken, len(steps)), [value for _, value in kept]]
        metrics.setdefault(key, {"unit": _unit(key), "lines": []})["lines"].append(line)
    ordered = sorted(metrics, key=lambda key: (_place(key), key))
    return {
        "jobs": [len(chosen), len(place)],
        "points": points,
        "thinned": [sum(line.every(points) > 1 for line in found), len(found)],
        "steps": list(steps),
        "metrics": {key: metrics[key] for key in ordered},
    }


@dataclass(frozen=True, slots=True)
class _Line:
    job: uuid.UUID
    key: str
    count: int

    def every(self, points: int) -> int:
        """Of how many points one is kept: the smallest power of two that leaves no more than `points`."""
        return 1 << (-(-self.count // points) - 1).bit_length()


def _thinned(session: Session, lines: Sequence[_Line], points: int) -> dict[Any, list[tuple[int, float | None]]]:
    """By job and metric its points (step, value), in order; by one query, which reads each line as the index has it."""
    columns: dict[str, TypeEngine[Any]] = {"job": Uuid(), "key": Text(), "every": BigInteger(), "count": BigInteger()}
    given = [
        [line.job for line in lines],
        [line.key for line in lines],
        [line.every(points) for line in lines],
        [line.count for line in lines],
    ]
    arrays = [cast(values, ARRAY(kind)) for values, kind in zip(given, columns.values(), strict=True)]
    asked = func.unnest(*arrays).table_valued(*(column(name, kind) for name, kind in columns.items()))
    asked = asked.render_derived(name="asked")
    numbered = (
        select(Metric.step, Metric.value, (func.row_number().over(order_by=Metric.step) - 1).label("place"))
        .where(Metric.job_id == asked.c.job, Metric.key == asked.c.key)
        .lateral()
    )
    query = (
        select(asked.c.job, asked.c.key, numbered.c.step, numbered.c.value)
        .select_from(asked.join(numbered, true()))
        .where(or_(numbered.c.place % asked.c.every == 0, numbered.c.place == asked.c.count - 1))
        .order_by(asked.c.job, asked.c.key, numbered.c.step)
    )
    found: dict[Any, list[tuple[int, float | None]]] = {}
    for job, key, step, value in session.execute(query):
        found.setdefault((job, key), []).append((step, rounded(value)))
    return found


def rounded(value: float) -> float | None:
    """With the digits that a picture shows; None for what is no number, of which JSON has none."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _place(key: str) -> int:
    """What a kind of job is known by comes first."""
    known = list(dict.fromkeys(key for kind in KINDS.values() for key in kind.headlines))
    return known.index(key) if key in known else len(known)


def _unit(key: str) -> str:
    return next((unit for end, unit in _UNITS.items() if key.endswith(end)), "")
