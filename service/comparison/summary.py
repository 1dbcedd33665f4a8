"""What came of an experiment in one table: a row for all jobs that differ in their seed alone."""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from barlow_lab.specs import canonical_json, open_stored, written_out
from barlow_lab.specs.protocols import shown_protocol
from barlow_lab.specs.variation import Path
from service.comparison.lined_up import LinedUp, line_up
from service.comparison.models import ScoreRow
from service.comparison.seed_groups import all_but_the_seed, chosen_checkpoint, title_of
from service.database.tables import Job
from service.ledger.states import JobState

_DIGITS = 6
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class _Spread:
    """Mean and sample standard deviation over `n` jobs."""

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> _Spread | None:
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(slots=True)
class _Row:
    name: str
    jobs: list[Job]
    """Those that make the backbone; empty for one that no job of the experiment has made."""
    evaluations: set[uuid.UUID]
    spreads: list[_Spread | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Summary:
    """`columns` and `rows` of a table, and the score that counts of its best row in words, if there is one."""

    columns: list[str]
    rows: list[list[Any]]
    headline: str | None


def summary(session: Session, jobs: Sequence[Job], paths: Sequence[Path]) -> Summary:
    """Mean and standard deviation over seeds of what each pretraining ended with, and of the headline of each
    evaluation of it; backbones that no job made follow.

    Args:
        jobs: of the experiment, without those that others were made in place of.
        paths: fields of a pretraining's spec that vary, each a column.
    """
    makers = [job for job in jobs if open_stored(job.spec).backbone_made is not None]
    lined = line_up(session, jobs)
    rows = _rows(jobs, makers, lined)
    last = {key: words for job in makers for key, words in open_stored(job.spec).headlines.items()}
    measures = [row for row in lined.scores if row.headline]
    sources = {job.id: job.source_job_id for job in jobs}
    for row in rows:
        row.spreads = [_Spread.of(_last(row.jobs, key)) for key in last]
        row.spreads += [_Spread.of(_scores(lined, measure, row.evaluations, sources)) for measure in measures]
    titles = [*last.values(), *(_title(measure, measures) for measure in measures)]
    shown = [i for i in range(len(titles)) if any(row.spreads[i] for row in rows)]
    columns = ["backbone", *_names(paths), *(["seeds"] if makers else [])]
    columns += [f"{titles[i]}, {what}" for i in shown for what in ("mean", "std", "n")]
    table = [
        [row.name, *(_value(row, path) for path in paths), *([_seeds(row)] if makers else [])]
        + [number for i in shown for number in _numbers(row.spreads[i])]
        for row in rows
    ]
    # MLflow's pages take a dot in a column's name for the way into an object, and show nothing.
    return Summary([column.replace(".", "·") for column in columns], table, _best(rows, titles[len(last) :], len(last)))


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, where it is of no other."""
    last = [path[-1] for path in paths]
    return [word if last.count(word) == 1 else ".".join(path) for word, path in zip(last, paths, strict=True)]


def _rows(jobs: Sequence[Job], makers: Sequence[Job], lined: LinedUp) -> list[_Row]:
    by_id = {job.id: job for job in jobs}
    groups: dict[str, list[Job]] = {}
    for job in makers:
        groups.setdefault(all_but_the_seed(job), []).append(job)
    rows = []
    grouped: set[uuid.UUID] = set()
    for group in groups.values():
        ids, name = {job.id for job in group}, title_of([job.name for job in group], group)
        judged = [by_id[one.job] for one in lined.evaluations if by_id[one.job].source_job_id in ids]
        grouped |= {job.id for job in judged}
        chosen = {"last": set[uuid.UUID]()}
        for job in judged:
            chosen.setdefault(chosen_checkpoint(job), set()).add(job.id)
        rows += [
            _Row(name if select == "last" else f"{name}, at {select}", group, evaluations)
            for select, evaluations in chosen.items()
        ]
    for i, backbone in enumerate(lined.backbones):
        others = {job for row in lined.scores if (cell := row.cells[i]) for job in cell.jobs} - grouped
        if others:
            rows.append(_Row(backbone, [], others))
    return rows


def _last(jobs: Sequence[Job], key: str) -> list[float]:
    """Of a metric, what those of the jobs that succeeded ended with."""
    results = [(job.result or {}).get("metrics") or {} for job in jobs if job.state == JobState.SUCCEEDED]
    return [result[key] for result in results if key in result]


def _scores(
    lined: LinedUp, measure: ScoreRow, evaluations: set[uuid.UUID], sources: Mapping[uuid.UUID, uuid.UUID | None]
) -> list[float]:
    """Of each backbone its score, the mean over the evaluations that measured it so."""
    measured = {job for cell in measure.cells if cell for job in cell.jobs} & evaluations
    alike: dict[uuid.UUID, list[float]] = {}
    for one in lined.evaluations:
        if one.job in measured:
            values = [score.last for score in one.scores if score.name == measure.score]
            alike.setdefault(sources[one.job] or one.job, []).extend(values)
    return [statistics.fmean(values) for values in alike.values()]


def _title(measure: ScoreRow, measures: Sequence[ScoreRow]) -> str:
    """`knn/1 top1`, with the data set where they are several, and what else tells it from others."""
    several = len({other.data for other in measures}) > 1
    words = [shown_protocol(measure.protocol), *([f"on {measure.data}"] if several else []), measure.score]
    return " ".join(words) + (f" ({measure.variant})" if measure.variant else "")


def _value(row: _Row, path: Path) -> str:
    """Of a field of the spec that the row's jobs share."""
    value: Any = written_out(row.jobs[0].spec) if row.jobs else None
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return str(value["name"])
    text = "" if value is None else value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _seeds(row: _Row) -> str:
    return ", ".join(str(open_stored(job.spec).seed) for job in row.jobs)


def _numbers(spread: _Spread | None) -> list[float | int | None]:
    if spread is None:
        return [None, None, None]
    return [_rounded(spread.mean), None if spread.deviation is None else _rounded(spread.deviation), spread.n]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _best(rows: Sequence[_Row], titles: Sequence[str], first: int) -> str | None:
    """The highest mean of the first measure among the backbones that jobs of the experiment made."""
    for i, title in enumerate(titles, first):
        found = [(spread, row) for row in rows if row.jobs and (spread := row.spreads[i])]
        if found:
            spread, row = max(found, key=lambda pair: pair[0].mean)
            words = f"{title} {spread.mean:.2f}"
            words += "" if spread.deviation is None else f" ± {spread.deviation:.2f} (n={spread.n})"
            return f"best {words}: {row.name}" if len({id(row.jobs) for _, row in found}) > 1 else words
    return None
