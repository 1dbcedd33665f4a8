"""Which jobs a page shows, and which of them are seeds of one another."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.specs import canonical_json, open_stored
from barlow_lab.specs.variant_names import seed_suffix
from service.comparison.seed_groups import chosen_checkpoint, fingerprint, spec_but_the_seed, title_of
from service.database.tables import Job
from service.ledger.jobs import RETRY_SUFFIX


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that differ in their seed alone, or one job."""

    name: str
    jobs: list[Job]


def without_retried(jobs: Sequence[Job]) -> list[Job]:
    """Those that no retry among them was made in place of."""
    replaced = {job.retry_of for job in jobs}
    return [job for job in jobs if job.id not in replaced]


def first_seeds_first(groups: Sequence[Group]) -> list[tuple[int, Job]]:
    """The jobs with the numbers of their groups: the first of each group, then the second ones, and so on."""
    turns = [(turn, number, job) for number, group in enumerate(groups) for turn, job in enumerate(group.jobs)]
    return [(number, job) for _, number, job in sorted(turns, key=lambda one: one[:2])]


def grouped(session: Session, jobs: Sequence[Job]) -> list[Group]:
    """The jobs by what they are but for the seed: those that make a backbone first, each group where its first job is.

    An evaluation is of the group of those that judge alike what is of one group.
    """
    known: dict[uuid.UUID | None, Job] = {job.id: job for job in jobs}
    if missing := {job.source_job_id for job in jobs if job.source_job_id is not None} - known.keys():
        known |= {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(missing)))}
    ordered = sorted(jobs, key=lambda job: open_stored(job.spec).backbone_made is None)
    alike: dict[str, list[Job]] = {}
    for job in ordered:
        alike.setdefault(_but_for_the_seed(job, known.get(job.source_job_id)), []).append(job)
    parts = [part for group in alike.values() for part in _by_images(group)]
    titles = [_title(part, known) for part in parts]
    if len(set(titles)) < len(titles):
        titles = [f"{title} ({str(part[0].id)[-6:]})" for title, part in zip(titles, parts, strict=True)]
    return [Group(title, part) for title, part in zip(titles, parts, strict=True)]


def _but_for_the_seed(job: Job, source: Job | None) -> str:
    if source is None:
        return spec_but_the_seed(job)
    of = [spec_but_the_seed(source), fingerprint(source), chosen_checkpoint(job)]
    return canonical_json([*of, spec_but_the_seed(job, "backbone_from")])


def _title(part: Sequence[Job], known: Mapping[uuid.UUID | None, Job]) -> str:
    """By the names without seeds; that in the name of an evaluation is its source's."""
    seeds = [open_stored(known.get(job.source_job_id, job).spec).seed for job in part]
    named = [RETRY_SUFFIX.sub("", job.name) for job in part]
    stems = {name.removesuffix(seed_suffix(seed)) for name, seed in zip(named, seeds, strict=True)}
    if len(part) > 1 and len(stems) == 1:
        return f"{stems.pop()}, {len(part)} seeds"
    return title_of([job.name for job in part], part)


def _by_images(group: Sequence[Job]) -> list[list[Job]]:
    """Those that saw the same images; one that does not know yet which it saw is with the others."""
    seen: dict[str | None, list[Job]] = {}
    for job in group:
        seen.setdefault(fingerprint(job), []).append(job)
    return [list(group)] if len(seen.keys() - {None}) < 2 else list(seen.values())
