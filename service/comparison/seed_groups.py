"""Pretrainings of an experiment that differ in their seed alone: one column of a comparison, mean and deviation over
them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.specs import BackboneJudged, canonical_json, open_stored, written_out
from barlow_lab.specs.variant_names import seed_suffix
from service.comparison.models import SeedGroup
from service.database.tables import Job
from service.ledger.jobs import RETRY_SUFFIX

_NOT_COMPARED = {"name", "run", "resources", "seed"}
_LONGEST_TITLE = 60


def seed_groups(
    session: Session, judged: Sequence[Job], called: Mapping[uuid.UUID, str]
) -> tuple[dict[uuid.UUID, str], list[SeedGroup]]:
    """The column of each evaluation by its id, and the groups among the columns.

    Args:
        judged: the evaluations.
        called: what the backbone of each is called, another name for another one; the column of one in no group.
    """
    ids = {job.source_job_id for job in judged if job.source_job_id is not None}
    sources: dict[uuid.UUID | None, Job] = (
        {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(ids)))} if ids else {}
    )
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in judged:
        if job.source_job_id is not None:
            alike = all_but_the_seed(sources[job.source_job_id]), chosen_checkpoint(job)
            groups.setdefault(alike, []).append(job)
    columns = dict(called)
    found = []
    members = [group for group in groups.values() if len({seed_of(sources[job.source_job_id]) for job in group}) > 1]
    titles = [
        title_of([called[job.id] for job in group], [sources[job.source_job_id] for job in group]) for group in members
    ]
    taken = Counter([*titles, *set(called.values())])
    for group, title in zip(members, titles, strict=True):
        column = title if taken[title] == 1 else ", ".join(dict.fromkeys(called[job.id] for job in group))
        columns |= dict.fromkeys((job.id for job in group), column)
        of = {source.id: seed_of(source) for source in (sources[job.source_job_id] for job in group)}
        found.append(SeedGroup(backbone=column, jobs=list(of), seeds=list(of.values())))
    return columns, found


def all_but_the_seed(source: Job) -> str:
    """Equal for jobs of an experiment that differ in their seed alone, and saw the same images."""
    return canonical_json([spec_but_the_seed(source), fingerprint(source)])


def spec_but_the_seed(job: Job, *left_out: str) -> str:
    """The experiment and the spec without what does not count in it, and without the fields named."""
    spec = {key: value for key, value in written_out(job.spec).items() if key not in (*_NOT_COMPARED, *left_out)}
    return canonical_json([str(job.experiment_id), spec])


def fingerprint(job: Job) -> str | None:
    """Of the images that it saw; None: it has no result that says so."""
    return ((job.result or {}).get("data") or {}).get("fingerprint")


def chosen_checkpoint(judged: Job) -> str:
    """Which checkpoint of its pretraining an evaluation takes: `last`, or as its spec says."""
    spec = open_stored(judged.spec)
    return spec.backbone_from.select if isinstance(spec, BackboneJudged) else ""


def title_of(called: Sequence[str], sources: Sequence[Job]) -> str:
    """`pretrain, 3 seeds`: the names without their seeds, where they are those of an experiment's seeds.

    Args:
        called: what the backbone of each of `sources` is called, which has the name of that job in it.
    """
    stems = set()
    for words, source in zip(called, sources, strict=True):
        name = source.name or ""
        stems.add(words.replace(name, RETRY_SUFFIX.sub("", name).removesuffix(seed_suffix(seed_of(source)))))
    names = list(dict.fromkeys(called))
    if len(names) == 1:
        return names[0]
    if len(stems) == 1:
        return f"{stems.pop()}, {len(names)} seeds"
    whole = ", ".join(names)
    return whole if len(whole) <= _LONGEST_TITLE else f"{names[0]} and {len(names) - 1} more seeds"


def seed_of(job: Job) -> int:
    """As its spec says, or as a spec that says none means."""
    return open_stored(job.spec).seed
