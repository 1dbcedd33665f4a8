"""Evaluations lined up: rows by what was measured, columns by whose backbone it was of."""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.specs import BackboneJudged, canonical_json, open_stored
from barlow_lab.specs.kinds import KINDS
from service.comparison.models import Cell, Evaluated, EvaluationScore, ScoreRow, SeedGroup
from service.comparison.seed_groups import seed_groups
from service.comparison.values import all_equal, flat
from service.database.tables import Experiment, Job
from service.evaluations import backbone_of, data_of, measure_of, source_of

SHOWN_DIGITS = 12
"""Characters of a fingerprint that are shown."""
_SOURCES = ("job", "file", "torchvision", "random", "pixels")
_KINDS = list(KINDS)


@dataclass(frozen=True, slots=True)
class LinedUp:
    """The results of evaluations, and the same as rows of scores with a column for each of `backbones`."""

    evaluations: list[Evaluated]
    backbones: list[str]
    groups: list[SeedGroup]
    """Which of these columns are several seeds."""
    scores: list[ScoreRow]


def line_up(session: Session, jobs: Sequence[Job]) -> LinedUp:
    """The evaluations among the jobs lined up, with one column for pretrainings that differ in their seed alone.

    Rows stand in the order of the kinds, columns with trained backbones first and raw pixels last.
    """
    judged = [job for job in jobs if _is_measured(job)]
    called = _backbones(session, judged)
    found = [(job, _evaluated(job, called[job.id])) for job in judged]
    by_source = sorted(found, key=lambda pair: _SOURCES.index(source_of(_opened(pair[0]))))
    columns, groups = seed_groups(session, judged, called)
    backbones = list(dict.fromkeys(columns[job.id] for job, _ in by_source))
    rows = _rows(sorted(found, key=lambda pair: _place(pair[0])), backbones, columns)
    return LinedUp([one for _, one in found], backbones, groups, rows)


def _backbones(session: Session, jobs: Sequence[Job]) -> dict[uuid.UUID, str]:
    """What to call the backbone that each evaluation judged, by its id: another name for another backbone."""
    sources = {job.source_job_id for job in jobs if job.source_job_id is not None}
    rows = select(Job.id, Job.name, Experiment.name).join(Experiment).where(Job.id.in_(sources))
    known = {key: (name, experiment) for key, name, experiment in session.execute(rows)}
    short: dict[uuid.UUID, str] = {}
    long: dict[uuid.UUID, str] = {}
    meant: dict[str, set[str]] = {}
    for job in jobs:
        name, experiment = known[job.source_job_id] if job.source_job_id else (None, None)
        spec = _opened(job)
        built = {} if spec.backbone is None else spec.backbone.model_dump(mode="json")
        told = ", ".join(f"{field} {canonical_json(value)}" for field, value in built.items() if field != "name")
        said = short[job.id] = backbone_of(spec, name)
        long[job.id] = f"{experiment}/{said}" if experiment else f"{said} ({told})"
        meant.setdefault(said, set()).add(canonical_json([str(job.source_job_id), built]))
    return {key: said if len(meant[said]) == 1 else long[key] for key, said in short.items()}


def _is_measured(job: Job) -> bool:
    """Whether it is an evaluation that succeeded, with a result of this version."""
    return isinstance(open_stored(job.spec), BackboneJudged) and isinstance((job.result or {}).get("scores"), dict)


def _evaluated(job: Job, backbone: str) -> Evaluated:
    result = job.result or {}
    spec = _opened(job)
    published = spec.run.published
    headline = result["headline"]
    scores = []
    for name in sorted(result["scores"], key=lambda name: (name != headline, name)):
        last, best = result["scores"][name]["last"], result["scores"][name]["best"]
        theirs = published.scores.get(name) if published is not None else None
        difference = None if theirs is None else last - theirs
        scores.append(EvaluationScore(name=name, last=last, best=best, published=theirs, difference=difference))
    return Evaluated(
        job=job.id,
        protocol=result["protocol"],
        departures=result["departures"],
        data=data_of(spec),
        backbone=backbone,
        headline=headline,
        scores=scores,
        published_in=published.source if published is not None else None,
    )


def _place(job: Job) -> tuple[int, float]:
    """The place of a row: by kind, and a smaller part of the labels first."""
    return _KINDS.index(job.kind), _opened(job).labels_percent


def _opened(job: Job) -> BackboneJudged:
    """The spec of an evaluation."""
    spec = open_stored(job.spec)
    assert isinstance(spec, BackboneJudged), "only what is measured is lined up"
    return spec


def _rows(
    found: Sequence[tuple[Job, Evaluated]], backbones: Sequence[str], columns: Mapping[uuid.UUID, str]
) -> list[ScoreRow]:
    measured: dict[str, list[tuple[Job, Evaluated]]] = {}
    for job, one in found:
        what = canonical_json([one.protocol, measure_of(job.spec), _seen(job)])
        measured.setdefault(what, []).append((job, one))
    rows = []
    for variant, group in zip(_variants([group[0] for group in measured.values()]), measured.values(), strict=True):
        first = group[0][1]
        for score in first.scores:
            told = {own.published for _, one in group if (own := _score(one, score.name))} - {None}
            rows.append(
                ScoreRow(
                    protocol=first.protocol,
                    data=first.data,
                    variant=variant,
                    score=score.name,
                    headline=score.name == first.headline,
                    cells=[
                        _cell([pair for pair in group if columns[pair[0].id] == name], score.name) for name in backbones
                    ],
                    published=told.pop() if len(told) == 1 else None,
                )
            )
    return rows


def _score(one: Evaluated, name: str) -> EvaluationScore | None:
    return next((score for score in one.scores if score.name == name), None)


def _cell(measured: Sequence[tuple[Job, Evaluated]], name: str) -> Cell | None:
    scores = [(job, score) for job, one in measured if (score := _score(one, name))]
    if not scores:
        return None
    # Evaluations of one pretraining are no further seeds of it.
    several = len({job.source_job_id for job, _ in scores}) > 1
    alike: dict[uuid.UUID | None, list[EvaluationScore]] = {}
    for job, score in scores:
        alike.setdefault(job.source_job_id if several else job.id, []).append(score)
    last = [statistics.fmean(score.last for score in group) for group in alike.values()]
    best = [statistics.fmean(score.best for score in group) for group in alike.values()]
    told = {score.published for _, score in scores} - {None}
    return Cell(
        last=statistics.fmean(last),
        best=statistics.fmean(best),
        deviation=statistics.stdev(last) if len(last) > 1 else None,
        n=len(last),
        published=told.pop() if len(told) == 1 else None,
        jobs=[job.id for job, _ in scores],
    )


def _variants(firsts: Sequence[tuple[Job, Evaluated]]) -> list[str]:
    """What tells each row from the others of its protocol and data: `k 200, temperature 0.1`."""
    fields = [
        {**{n[1:].replace("/", "."): value for n, value in flat(measure_of(job.spec))}, **_seen(job)}
        for job, _ in firsts
    ]
    titles = [(one.protocol, one.data) for _, one in firsts]
    out = []
    for mine, title in zip(fields, titles, strict=True):
        like = [other for other, its in zip(fields, titles, strict=True) if its == title]
        telling = [name for name in mine if not all_equal([other.get(name) for other in like])]
        out.append(", ".join(f"{name} {canonical_json(mine[name])}" for name in telling))
    return out


def _seen(job: Job) -> dict[str, str]:
    """The images and labels that an evaluation saw, by the first digits of their fingerprints: under the same name a
    host may have other files, and a version of ours may read the same ones otherwise."""
    result = job.result or {}
    data, labels = result.get("data") or {}, result.get("labels") or {}
    told = {
        "train data": data.get("train_fingerprint"),
        "test data": data.get("test_fingerprint"),
        "labels drawn": labels.get("digest"),
    }
    return {name: str(value)[:SHOWN_DIGITS] for name, value in told.items() if value is not None}
