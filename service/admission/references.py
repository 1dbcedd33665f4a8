"""Which jobs a spec names: the source of its backbone, and those it runs after."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.specs import Fault, Spec, open_stored
from barlow_lab.specs.edges import named_in
from barlow_lab.specs.kinds import MAKERS, BackboneMade
from barlow_lab.spelling import nearest
from service.database.ids import read_uuid
from service.database.tables import Checkpoint, Job
from service.ledger.states import JobState

Name = str


@dataclass(frozen=True, slots=True)
class References:
    """Jobs that a spec names: by id, or by name where they are submitted together with it."""

    source: uuid.UUID | Name | None
    after: list[uuid.UUID | Name]
    made: BackboneMade | None = None
    """The source's backbone."""


@dataclass(frozen=True, slots=True)
class NamedJob:
    """What a reference asks of a job that is there."""

    id: uuid.UUID
    name: str
    kind: str
    state: str
    spec: Mapping[str, Any]
    """As it was stored."""


@dataclass(slots=True)
class KnownJobs:
    """The jobs that the specs of one submission may name: those beside them, and those read from the database."""

    session: Session
    experiment_id: uuid.UUID | None
    siblings: Mapping[Name, Spec | None]
    by_id: dict[uuid.UUID, NamedJob]
    by_name: dict[Name, NamedJob]
    _names: list[Name] | None = None

    def find(self, name: str) -> NamedJob | None:
        """The job of this id, or of this name in the experiment."""
        job_id = read_uuid(name)
        return self.by_name.get(name) if job_id is None else self.by_id.get(job_id)

    def names(self) -> list[Name]:
        """Names to compare a mistyped one with: of the siblings, then the newest ones of the experiment."""
        if self._names is None:
            self._names = [*self.siblings]
            if self.experiment_id is not None:
                here = select(Job.name).where(Job.experiment_id == self.experiment_id)
                self._names += self.session.scalars(here.order_by(Job.id.desc()).limit(1000))
        return self._names


def look_up(
    session: Session,
    specs: Iterable[Spec],
    *,
    experiment_id: uuid.UUID | None,
    siblings: Mapping[Name, Spec | None] | None = None,
) -> KnownJobs:
    """Read every job that `specs` name, in two queries.

    Args:
        experiment_id: where names are looked up; None: an experiment that does not exist yet.
        siblings: jobs submitted together with these; None for one that is not valid itself.
    """
    siblings = siblings or {}
    named = {name for spec in specs for _, name in named_in(spec) if name not in siblings}
    ids = {job_id for name in named if (job_id := read_uuid(name)) is not None}
    columns = select(Job.id, Job.name, Job.kind, Job.state, Job.spec)
    by_id = columns.where(Job.id.in_(ids))
    by_name = columns.where(Job.experiment_id == experiment_id, Job.name.in_(named))
    return KnownJobs(
        session,
        experiment_id,
        siblings,
        {row[0]: NamedJob(*row) for row in (session.execute(by_id) if ids else ())},
        {row[1]: NamedJob(*row) for row in (session.execute(by_name) if named and experiment_id is not None else ())},
    )


def resolve(known: KnownJobs, spec: Spec) -> tuple[References, list[Fault]]:
    """Find every job that `spec` names, and every reason why it could never have what it waits for."""
    source: uuid.UUID | Name | None = None
    after: list[uuid.UUID | Name] = []
    faults: list[Fault] = []
    made: BackboneMade | None = None
    for pointer, name in named_in(spec):
        is_source = pointer == "/backbone_from/job"
        found: uuid.UUID | Name
        if name in known.siblings:
            sibling = known.siblings[name]
            found = name
            if is_source and sibling is not None:
                if (made := sibling.backbone_made) is not None:
                    faults += spec.faults_of_source(made.backbone.name)
                else:
                    faults.append(Fault(pointer, _wrong_kind(name, sibling.kind)))
        else:
            job = known.find(name)
            if job is None:
                faults.append(Fault(pointer, _unknown(known, name)))
                continue
            found = job.id
            if is_source:
                made = open_stored(job.spec).backbone_made
                faults += _faults_of_source(known.session, spec, job, made)
            else:
                faults += _faults_of_wait(pointer, job)
        if is_source:
            source = found
        else:
            after.append(found)
    return References(source, after, made), faults


def _unknown(known: KnownJobs, name: str) -> str:
    if read_uuid(name) is not None:
        return f"there is no job {name}"
    near = nearest(name, known.names())
    hint = f"did you mean {near!r}?" if near else "name a job of the same experiment, or give a job's id"
    return f"the experiment has no job {name!r}; {hint}"


def _faults_of_source(session: Session, spec: Spec, job: NamedJob, made: BackboneMade | None) -> list[Fault]:
    wanted = spec.backbone_from_elsewhere
    assert wanted is not None, "it names the job"
    if made is None:
        return [Fault("/backbone_from/job", _wrong_kind(job.name, job.kind))]
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        return _faults_of_wait("/backbone_from/job", job)
    if faults := spec.faults_of_source(made.backbone.name):
        return faults
    if wanted.step is None or job.state != JobState.SUCCEEDED:
        return []
    step = wanted.step
    kept = select(Checkpoint.step).where(
        Checkpoint.job_id == job.id, Checkpoint.kind != "backbone", Checkpoint.deleted_at.is_(None)
    )
    steps = sorted(set(session.scalars(kept)))
    if step in steps:
        return []
    have = f"it has {', '.join(map(str, steps))}" if steps else "it has none"
    return [Fault("/backbone_from/select", f"job {job.name} has no checkpoint of step {step}; {have}")]


def _faults_of_wait(pointer: str, job: NamedJob) -> list[Fault]:
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        return []
    said = (
        f"job {job.name} ({job.id}) {JobState(job.state).words}, so this one could never start; name one that succeeded"
    )
    return [Fault(pointer, said)]


def _wrong_kind(name: str, kind: str) -> str:
    return f"job {name} is a {kind} job and makes no backbone; name a {' or '.join(MAKERS)} job"
