"""Which jobs a spec names: the source of its backbone, and those it runs after."""

from __future__ import annotations

import difflib
import graphlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.api.deps import read_uuid
from service.database.tables import Checkpoint, Job
from service.ledger.states import JobState
from trainer.specs import DetectionSpec, EvaluationSpec, Fault, PretrainSpec, Spec
from trainer.specs.catalogue import detector_fault, image_size_fault

Name = str


@dataclass(frozen=True, slots=True)
class References:
    """Jobs that a spec names: by id, or by name where they are submitted together with it."""

    source: uuid.UUID | Name | None
    after: list[uuid.UUID | Name]


def named_in(spec: Spec) -> Iterator[tuple[str, str]]:
    """Each reference of a spec with its pointer."""
    if not isinstance(spec, PretrainSpec) and spec.backbone_from.job is not None:
        yield "/backbone_from/job", spec.backbone_from.job
    for i, name in enumerate(spec.run.after):
        yield f"/run/after/{i}", name


def resolve(
    session: Session,
    spec: Spec,
    *,
    experiment_id: uuid.UUID | None,
    siblings: Mapping[Name, Spec | None] | None = None,
) -> tuple[References, list[Fault]]:
    """Find every job that `spec` names, and every reason why it could never have what it waits for.

    Args:
        experiment_id: where names are looked up; None: an experiment that does not exist yet.
        siblings: jobs submitted together with this one; None for one that is not valid itself.
    """
    siblings = siblings or {}
    source: uuid.UUID | Name | None = None
    after: list[uuid.UUID | Name] = []
    faults: list[Fault] = []
    for pointer, name in named_in(spec):
        is_source = pointer == "/backbone_from/job"
        found: uuid.UUID | Name
        if name in siblings:
            sibling = siblings[name]
            found = name
            if is_source and isinstance(sibling, PretrainSpec):
                faults += _faults_of_backbone(spec, sibling.backbone.name)
            elif is_source and sibling is not None:
                faults.append(Fault(pointer, _wrong_kind(name, sibling.kind)))
        else:
            job = _find(session, experiment_id, name)
            if job is None:
                faults.append(Fault(pointer, _unknown(session, experiment_id, name, siblings)))
                continue
            found = job.id
            faults += _faults_of_source(session, spec, job) if is_source else _faults_of_wait(pointer, job)
        if is_source:
            source = found
        else:
            after.append(found)
    return References(source, after), faults


def order(jobs: Mapping[Name, Spec]) -> tuple[list[Name], list[Fault]]:
    """Names so that each stands after those it waits for, or the circle that forbids it."""
    waits = {name: {other for _, other in named_in(spec) if other in jobs} for name, spec in jobs.items()}
    try:
        return list(graphlib.TopologicalSorter(waits).static_order()), []
    except graphlib.CycleError as error:
        circle: list[Name] = list(reversed(error.args[1]))
        pointer = next(pointer for pointer, other in named_in(jobs[circle[0]]) if other == circle[1])
        said = " waits for ".join(circle)
        return [], [Fault(f"/jobs/{circle[0]}{pointer}", f"{said}: none of them could ever start; break the circle")]


def _find(session: Session, experiment_id: uuid.UUID | None, name: str) -> Job | None:
    job_id = read_uuid(name)
    if job_id is not None:
        return session.get(Job, job_id)
    if experiment_id is None:
        return None
    return session.scalar(select(Job).where(Job.experiment_id == experiment_id, Job.name == name))


def _unknown(session: Session, experiment_id: uuid.UUID | None, name: str, siblings: Mapping[Name, Spec | None]) -> str:
    if read_uuid(name) is not None:
        return f"there is no job {name}"
    here = [*siblings]
    if experiment_id is not None:
        newest = select(Job.name).where(Job.experiment_id == experiment_id).order_by(Job.id.desc()).limit(1000)
        here += session.scalars(newest)
    near = difflib.get_close_matches(name, here, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "name a job of the same experiment, or give a job's id"
    return f"the experiment has no job {name!r}; {hint}"


def _faults_of_source(session: Session, spec: Spec, job: Job) -> list[Fault]:
    assert not isinstance(spec, PretrainSpec)
    if job.kind != "pretrain":
        return [Fault("/backbone_from/job", _wrong_kind(job.name, job.kind))]
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        return _faults_of_wait("/backbone_from/job", job)
    if faults := _faults_of_backbone(spec, job.spec["backbone"]["name"]):
        return faults
    if spec.backbone_from.select == "last" or job.state != JobState.SUCCEEDED:
        return []
    step = int(spec.backbone_from.select.removeprefix("step "))
    kept = select(Checkpoint.step).where(
        Checkpoint.job_id == job.id, Checkpoint.kind != "backbone", Checkpoint.deleted_at.is_(None)
    )
    steps = sorted(set(session.scalars(kept)))
    if step in steps:
        return []
    have = f"it has {', '.join(map(str, steps))}" if steps else "it has none"
    return [Fault("/backbone_from/select", f"job {job.name} has no checkpoint of step {step}; {have}")]


def _faults_of_backbone(spec: Spec, backbone: str) -> list[Fault]:
    """Why an evaluation cannot be one of this network, the one that the job it names makes."""
    if isinstance(spec, EvaluationSpec):
        said = image_size_fault(backbone, spec.images.size)
        return [] if said is None else [Fault("/images/size", said)]
    assert isinstance(spec, DetectionSpec)
    said = detector_fault(backbone)
    return [] if said is None else [Fault("/backbone_from/job", said)]


def _faults_of_wait(pointer: str, job: Job) -> list[Fault]:
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        return []
    said = (
        f"job {job.name} ({job.id}) {JobState(job.state).words}, so this one could never start; name one that succeeded"
    )
    return [Fault(pointer, said)]


def _wrong_kind(name: str, kind: str) -> str:
    return f"job {name} is a {kind} job and makes no backbone; name a pretrain job"
