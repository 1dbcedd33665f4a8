"""From a body to jobs: all faults first, then all jobs in one transaction."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from service.api import plan
from service.api.auth import Caller
from service.api.fleet import faults_in, faults_of_names, load_fleet
from service.api.presentation import job_view
from service.api.problems import Problem, invalid_spec
from service.api.references import References, order, resolve
from service.api.schemas import Plan
from service.database.tables import Experiment, Job
from service.ledger import jobs as ledger
from service.ledger.errors import DependencyFailed, JobNameTaken
from service.settings import Settings
from trainer.specs import BackboneSpec, Fault, PretrainSpec, Spec, SpecError, parse_spec
from trainer.specs.catalogue import network_of
from trainer.specs.common import NAME_RULE, Name

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_ABSENT = object()


def submit_job(session: Session, body: Any, experiment_name: str, *, caller: Caller) -> Job:
    """Add one job to an experiment, which is made if it is new.

    Raises:
        Problem: 422 with all faults; 409.
    """
    experiment = session.scalar(select(Experiment).where(Experiment.name == experiment_name))
    experiment_id = experiment.id if experiment else None
    fleet = load_fleet(session)
    try:
        spec = parse_spec(body)
    except SpecError as error:
        faults = error.faults
        if rest := _without(body, faults):
            _, found = resolve(session, rest, experiment_id=experiment_id)
            faults = _more(faults, found + faults_of_names(rest, fleet))
        raise invalid_spec(faults) from None
    references, faults = resolve(session, spec, experiment_id=experiment_id)
    faults += faults_in(spec, fleet)
    if faults:
        raise invalid_spec(faults)
    experiment = ledger.ensure_experiment(session, experiment_name)
    return _submit(session, experiment, spec, spec.name, references, {}, caller)


def submit_experiment(session: Session, body: Any, *, caller: Caller) -> Experiment:
    """Add an experiment with all its jobs, or nothing.

    Raises:
        Problem: 422 with all faults of all jobs; 409.
    """
    name, raw, faults = _experiment_parts(body)
    parsed, rests, found = _parse_all(raw)
    faults += found
    valid = {job: spec for job, spec in parsed.items() if spec is not None}
    fleet = load_fleet(session)
    references = {}
    for job, spec in valid.items():
        references[job], found = resolve(session, spec, experiment_id=None, siblings=parsed)
        faults += _below(job, found + faults_in(spec, fleet))
    for job, rest in rests.items():
        _, found = resolve(session, rest, experiment_id=None, siblings=parsed)
        faults = _more(faults, _below(job, found + faults_of_names(rest, fleet)))
    sequence, circle = order(valid)
    faults += circle
    if faults:
        raise invalid_spec(faults)
    experiment = ledger.ensure_experiment(session, name)
    # Asked after the row is there: a second request of this name has waited for the first one's commit.
    if session.scalar(select(exists().where(Job.experiment_id == experiment.id))):
        said = f"there is an experiment {name!r}; take another name, or add jobs by POST /api/v1/jobs?experiment={name}"
        raise Problem("name-taken", said, faults=[Fault("/name", said)])
    experiment.spec = body
    ids: dict[str, uuid.UUID] = {}
    for job in sequence:
        ids[job] = _submit(session, experiment, valid[job], job, references[job], ids, caller).id
    return experiment


def plan_job(session: Session, settings: Settings, body: Any, experiment_name: str, *, caller: Caller) -> Plan:
    """What `submit_job` would do, found by doing it and taking it back.

    Raises:
        Problem: exactly those of `submit_job`.
    """
    job = submit_job(session, body, experiment_name, caller=caller)
    view = job_view(session, settings, job, caller)
    spec = parse_spec(body)
    fleet = load_fleet(session)
    backbone = _backbone(session, spec, job)
    session.rollback()
    sized = backbone if backbone and plan.is_known(backbone) else None
    images, classes = fleet.images(spec.data.name, spec.data.split), fleet.classes(spec.data.name)
    need = plan.memory(spec, sized, classes, images) if sized else None
    steps_per_epoch, steps = plan.steps(spec, images, classes)
    return Plan(
        kind=view.kind,
        spec=view.spec,
        spec_digest=view.spec_digest,
        slots=view.slots,
        state=view.state,
        reason=view.reason,
        place=view.place,
        parameters=plan.parameters(spec, sized, classes) if sized else None,
        memory=need,
        images=None if images is None else min(images, spec.data.limit or images),
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        fits=plan.fits(spec, fleet, need),
    )


def _submit(
    session: Session,
    experiment: Experiment,
    spec: Spec,
    name: str | None,
    references: References,
    ids: Mapping[str, uuid.UUID],
    caller: Caller,
) -> Job:
    def known(reference: uuid.UUID | str) -> uuid.UUID:
        return ids[reference] if isinstance(reference, str) else reference

    try:
        return ledger.submit(
            session,
            experiment_id=experiment.id,
            spec=spec,
            name=name,
            after=[known(reference) for reference in references.after],
            source_job_id=None if references.source is None else known(references.source),
            actor=caller.name,
            user=caller.user,
        )
    except JobNameTaken as error:
        raise Problem("name-taken", str(error), faults=[Fault("/name", str(error))]) from None
    except DependencyFailed as error:  # it failed after `resolve` had looked
        raise invalid_spec([Fault("/backbone_from/job" if references.source else "/run/after", str(error))]) from None


def _backbone(session: Session, spec: Spec, job: Job) -> BackboneSpec | None:
    """The architecture: of the spec itself, of the job it evaluates, or none: raw pixels, and a backbone_from.file that
    brings its own, which the worker's host has."""
    if spec.backbone is not None:
        return spec.backbone
    if not isinstance(spec, PretrainSpec) and spec.backbone_from.torchvision is not None:
        return BackboneSpec(name=network_of(spec.backbone_from.torchvision))
    if job.source_job_id is None:
        return None
    source = session.get(Job, job.source_job_id)
    assert source is not None, "a foreign key holds it"
    # Not validated again: a backbone of one's own may be known to the source's workers and not, or no more, here.
    return BackboneSpec.model_construct(**source.spec["backbone"])


def _without(value: Any, faults: list[Fault]) -> Spec | None:
    """The spec as far as it can be read: without the values that `faults` point to, or None.

    What it names can then be looked up, so that a user hears of an unknown field and an unknown data set together.
    """
    rest = copy.deepcopy(value)
    # A default cannot be taken out: the ranks that do not divide the default batch go in its place.
    while sum(_remove(rest, fault.pointer) for fault in faults) or _remove(rest, "/resources"):
        try:
            return parse_spec(rest)
        except SpecError as error:  # a combination of values that is looked at when each of them is right
            faults = error.faults
    return None


def _remove(value: Any, pointer: str) -> bool:
    """Take the value at `pointer` out, of a list the whole list; whether there was anything."""
    holder, name = None, ""
    for part in pointer.split("/")[1:]:
        if not isinstance(value, dict):
            break
        holder, name = value, part.replace("~1", "/").replace("~0", "~")
        value = value.get(name)
    return holder is not None and holder.pop(name, _ABSENT) is not _ABSENT


def _more(faults: list[Fault], found: list[Fault]) -> list[Fault]:
    """`faults`, and those of `found` that are of other values."""
    named = {fault.pointer for fault in faults}
    return faults + [fault for fault in found if fault.pointer not in named]


def _experiment_parts(body: Any) -> tuple[str, dict[str, Any], list[Fault]]:
    """Name and raw jobs of an experiment, and the faults beside them.

    Raises:
        Problem: 422 when there are no jobs to look at.
    """
    if not isinstance(body, dict):
        raise invalid_spec([Fault("", "an experiment is an object {name, jobs: {name: spec}}")])
    faults = [
        Fault(f"/{field}", "unknown field; an experiment has name and jobs")
        for field in body
        if field not in ("name", "jobs")
    ]
    name, jobs = body.get("name"), body.get("jobs")
    if not _is_name(name):
        faults.append(Fault("/name", NAME_RULE))
    if not isinstance(jobs, dict) or not jobs:
        faults.append(Fault("/jobs", "an object {name: spec} with at least one job is expected here"))
        raise invalid_spec(faults)
    return str(name), jobs, faults


def _parse_all(raw: Mapping[str, Any]) -> tuple[dict[str, Spec | None], dict[str, Spec], list[Fault]]:
    """Each job's spec, None where it has faults; what can be read of those that have some; the faults."""
    parsed: dict[str, Spec | None] = {}
    rests: dict[str, Spec] = {}
    faults = []
    for job, value in raw.items():
        well_named = _is_name(job)
        found = [] if well_named else [Fault("", NAME_RULE)]
        if isinstance(value, dict):
            if value.get("name", job) != job:
                found.append(Fault("/name", f"the job is called {job!r} here; leave name out of its spec"))
            value = {**value, "name": job if well_named else None}
        spec: Spec | None = None
        try:
            spec = parse_spec(value)
        except SpecError as error:
            found += error.faults
        parsed[job] = None if found else spec
        if found and (rest := spec or _without(value, found)):
            rests[job] = rest
        faults += _below(job, found)
    return parsed, rests, faults


def _is_name(value: Any) -> bool:
    try:
        _NAME.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _below(job: str, faults: list[Fault]) -> list[Fault]:
    """Faults of a spec, as faults of the experiment that holds it."""
    escaped = job.replace("~", "~0").replace("/", "~1")
    return [Fault(f"/jobs/{escaped}{fault.pointer}", fault.message) for fault in faults]
