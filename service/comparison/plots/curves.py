"""Metrics over steps, thinned to a bounded number of points."""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from barlow_lab.specs import BackboneJudged, JobSpec, open_stored
from barlow_lab.specs.kinds import KINDS
from service.comparison.plots.choice import Group, first_seeds_first
from service.comparison.seed_groups import seed_of

MOST_JOBS = 100
"""Jobs whose metrics are read."""
MOST_POINTS = 250
"""Of a line, but for the last one; less where there are many lines."""
ALL_POINTS = 300_000
_FEWEST_POINTS = 16
_DIGITS = 6
_UNITS = {"images_per_second": "images/s", "_seconds": "s", "_top1": "%", "_top5": "%"}
"""By the ends of names that the loop and its probes give; those of scores are asked of their kinds."""


def curves(session: Session, groups: Sequence[Group]) -> dict[str, Any]:
    """For the page: lists of steps, of which lines share some, and by metric its unit and its lines, each of a group's
    number, the seed, a list of steps and the values.

    Of a line with too many points the first of every k steps is kept, k a power of two, and the last: so seeds keep
    points at the same steps, even one that ended early.
    """
    place = {job.id: (number, job) for number, job in first_seeds_first(groups) if job.started_at}
    chosen = list(place)[:MOST_JOBS]
    found = _found(session, chosen)
    scores = score_keys(open_stored(place[job_id][1].spec) for job_id in chosen)
    points = max(_FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, len(found))))
    steps: dict[tuple[int, ...], int] = {}
    metrics: dict[str, dict[str, Any]] = {}
    for (job_id, key), kept in _thinned(session, found, points).items():
        number, job = place[job_id]
        line = [number, seed_of(job), steps.setdefault(tuple(kept), len(steps)), list(kept.values())]
        metrics.setdefault(key, {"unit": _unit(key, scores), "lines": []})["lines"].append(line)
    ordered = sorted(metrics, key=lambda key: (_place(key), key))
    return {
        "jobs": [len(chosen), len(place)],
        "points": points,
        "thinned": [sum(line.count > points for line in found), len(found)],
        "steps": list(steps),
        "metrics": {key: metrics[key] for key in ordered},
    }


@dataclass(frozen=True, slots=True)
class _Line:
    job: uuid.UUID
    key: str
    first: int
    last: int
    count: int
    """Of its points, none beyond one more than a line may have."""

    def every(self, points: int) -> int:
        """Of how many steps one point is kept: the smallest power of two that leaves no more than `points`."""
        every = 1
        while self.last // every - self.first // every + 1 > points:
            every *= 2
        return every

    def asked(self, points: int) -> list[tuple[uuid.UUID, str, int, int, int, int]]:
        """From which step to which, in pieces of how many steps, and the most points of a piece."""
        if self.count <= points:
            return [(self.job, self.key, self.first, self.last, self.last - self.first + 1, points)]
        every = self.every(points)
        begin = self.first - self.first % every
        return [(self.job, self.key, begin, self.last, every, 1), (self.job, self.key, self.last, self.last, 1, 1)]


_LINES = text(
    """
    WITH RECURSIVE keys (job_id, key) AS (
        SELECT job_id, (SELECT min(key) FROM metrics WHERE metrics.job_id = jobs.job_id)
        FROM unnest(CAST(:jobs AS uuid[])) AS jobs (job_id)
        UNION ALL
        SELECT job_id, (SELECT min(key) FROM metrics WHERE metrics.job_id = keys.job_id AND metrics.key > keys.key)
        FROM keys WHERE key IS NOT NULL
    )
    SELECT job_id, key,
        (SELECT min(step) FROM metrics WHERE metrics.job_id = keys.job_id AND metrics.key = keys.key),
        (SELECT max(step) FROM metrics WHERE metrics.job_id = keys.job_id AND metrics.key = keys.key),
        (SELECT count(*) FROM (
            SELECT FROM metrics WHERE metrics.job_id = keys.job_id AND metrics.key = keys.key LIMIT :most
        ) AS counted)
    FROM keys WHERE key IS NOT NULL
    """
)
_POINTS = text(
    """
    SELECT asked.job_id, asked.key, point.step, point.value
    FROM unnest(
        CAST(:jobs AS uuid[]), CAST(:keys AS text[]), CAST(:begins AS bigint[]), CAST(:ends AS bigint[]),
        CAST(:every AS bigint[]), CAST(:most AS bigint[])
    ) AS asked (job_id, key, begin_step, end_step, every, most)
    CROSS JOIN LATERAL generate_series(begin_step, end_step, every) AS piece (begin_step)
    CROSS JOIN LATERAL (
        SELECT step, value FROM metrics
        WHERE metrics.job_id = asked.job_id AND metrics.key = asked.key
            AND step >= piece.begin_step AND step < piece.begin_step + asked.every
        ORDER BY step LIMIT asked.most
    ) AS point
    ORDER BY asked.job_id, asked.key, point.step
    """
)


def _found(session: Session, jobs: Sequence[uuid.UUID]) -> list[_Line]:
    """The lines of jobs: by a few looks into the index for each, however long it is."""
    return [_Line(*row) for row in session.execute(_LINES, {"jobs": list(jobs), "most": MOST_POINTS + 1})]


def _thinned(session: Session, lines: Sequence[_Line], points: int) -> dict[Any, dict[int, float | None]]:
    """By job and metric its points (value by step), in order; by one query, which reads little more than it answers."""
    columns = list(zip(*(asked for line in lines for asked in line.asked(points)), strict=True)) or [()] * 6
    names = ("jobs", "keys", "begins", "ends", "every", "most")
    found: dict[Any, dict[int, float | None]] = {}
    given = {name: list(values) for name, values in zip(names, columns, strict=True)}
    for job, key, step, value in session.execute(_POINTS, given):
        found.setdefault((job, key), {})[step] = rounded(value)
    return found


def rounded(value: float) -> float | None:
    """With the digits that a picture shows; None for what is no number, of which JSON has none."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _place(key: str) -> int:
    """What a kind of job is known by comes first."""
    known = list(dict.fromkeys(key for kind in KINDS.values() for key in kind.headlines))
    return known.index(key) if key in known else len(known)


def score_keys(specs: Iterable[JobSpec]) -> set[str]:
    """The metrics that are scores of evaluations, which all are percentages."""
    return {f"{spec.kind}_{name}" for spec in specs if isinstance(spec, BackboneJudged) for name in spec.score_names}


def _unit(key: str, scores: Collection[str]) -> str:
    if key in scores:
        return "%"
    return next((unit for end, unit in _UNITS.items() if key.endswith(end)), "")
