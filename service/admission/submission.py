"""From what was read of a body to jobs: all faults first, then all jobs in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from barlow_lab.specs import BackboneSpec, Fault, Spec, open_stored
from barlow_lab.specs.catalogue import network_of
from barlow_lab.specs.image_size import size_by_data, with_size
from barlow_lab.spelling import one_reading
from service.admission.allowances import priority_faults, take_room
from service.admission.errors import InvalidSpec, NameTaken
from service.admission.fleet import Fleet, faults_in, faults_of_names, load_fleet
from service.admission.plan import Needs, needs_of
from service.admission.reading import ExperimentBody, JobBody
from service.admission.references import References, look_up, resolve
from service.admission.weights_faults import FleetWeights
from service.callers import Caller
from service.database.tables import Experiment, Job
from service.ledger import events
from service.ledger import jobs as ledger
from service.ledger.errors import DependencyFailed, JobNameTaken
from service.settings import Settings


def submit_job(session: Session, settings: Settings, body: JobBody, experiment_name: str, *, caller: Caller) -> Job:
    """Add one job to an experiment, which is made if it is new.

    Raises:
        InvalidSpec: with all faults.
        NameTaken, TooManyOpenJobs
    """
    return _submit_one(session, settings, body, experiment_name, caller)[0]


def _submit_one(
    session: Session, settings: Settings, body: JobBody, experiment_name: str, caller: Caller
) -> tuple[Job, Spec]:
    """The job of `submit_job`, and its spec as it was stored."""
    experiment = session.scalar(select(Experiment).where(Experiment.name == experiment_name))
    fleet, found = load_fleet(session), body.found
    references = References(None, [])
    with one_reading():
        if readable := body.spec or body.rest:
            known = look_up(session, [readable], experiment_id=experiment.id if experiment else None)
            references, faults = resolve(known, readable)
            faults += priority_faults(readable, caller, settings) + FleetWeights(session).faults(readable)
            found.add_others(faults + (faults_in if body.spec else faults_of_names)(readable, fleet))
    if found or body.spec is None:
        raise InvalidSpec(found.faults, found.left_out)
    take_room(session, caller, settings, 1)
    experiment = ledger.ensure_experiment(session, experiment_name)
    spec = _sized(body.spec, references, fleet)
    job = _submit(session, experiment, spec, spec.name, references, {}, caller)
    _tell_of_size(session, job, body.spec, spec, references, fleet, caller)
    return job, spec


def submit_experiment(session: Session, settings: Settings, body: ExperimentBody, *, caller: Caller) -> Experiment:
    """Add an experiment with all its jobs, or nothing.

    Raises:
        InvalidSpec: with all faults of all jobs.
        NameTaken, TooManyOpenJobs
    """
    name, valid, found = body.name, body.valid, body.found
    fleet, weights = load_fleet(session), FleetWeights(session)
    known = look_up(session, [*valid.values(), *body.rests.values()], experiment_id=None, siblings=body.specs)
    references = {}
    with one_reading():
        for job, spec in valid.items():
            references[job], faults = resolve(known, spec)
            faults += priority_faults(spec, caller, settings) + weights.faults(spec)
            found.add(body.below(job, faults + faults_in(spec, fleet)))
        for job, rest in body.rests.items():
            _, faults = resolve(known, rest)
            faults += priority_faults(rest, caller, settings) + weights.faults(rest)
            found.add_others(body.below(job, faults + faults_of_names(rest, fleet)))
    if found:
        raise InvalidSpec(found.faults, found.left_out)
    take_room(session, caller, settings, len(valid))
    experiment = ledger.ensure_experiment(session, name)
    # Asked after the row is there: a second request of this name has waited for the first one's commit.
    if session.scalar(select(exists().where(Job.experiment_id == experiment.id))):
        said = f"there is an experiment {name!r}; take another name, or add jobs by POST /api/v1/jobs?experiment={name}"
        raise NameTaken(said)
    experiment.spec, experiment.varies = body.body, body.varies
    ids: dict[str, uuid.UUID] = {}
    for job in body.order:
        spec = _sized(valid[job], references[job], fleet)
        made = _submit(session, experiment, spec, job, references[job], ids, caller)
        _tell_of_size(session, made, valid[job], spec, references[job], fleet, caller)
        ids[job] = made.id
    return experiment


@contextmanager
def planned_job(
    session: Session, settings: Settings, body: JobBody, experiment_name: str, *, caller: Caller
) -> Iterator[tuple[Job, Needs]]:
    """The job that `submit_job` would make, and what it would need: found by making it, and taken back at the end.

    Raises:
        Refused: exactly as `submit_job`.
    """
    job, spec = _submit_one(session, settings, body, experiment_name, caller)
    try:
        yield job, needs_of(spec, _backbone(session, spec, job), load_fleet(session))
    finally:
        session.rollback()


def _sized(spec: Spec, references: References, fleet: Fleet) -> Spec:
    """The spec with the image size written out that an evaluation leaves to its source job or its data set."""
    entry, made = fleet.data_sets.get(spec.data.name), references.made
    return with_size(
        spec,
        trained_at=None if made is None else made.trained_at,
        data_side=None if entry is None else entry.image_size,
        network=None if made is None else made.backbone.name,
    )


def _tell_of_size(
    session: Session, job: Job, asked: Spec, spec: Spec, references: References, fleet: Fleet, caller: Caller
) -> None:
    """A warning of the job, where the size that is written out is the usual one because nobody has looked at the images
    yet: `spec` is `asked` with it."""
    entry = fleet.data_sets.get(spec.data.name)
    looked_at = entry is not None and (entry.checked or entry.image_size is not None)
    trained_at = None if references.made is None else references.made.trained_at
    size = size_by_data(asked, spec, trained_at=trained_at)
    if size is None or looked_at:
        return
    field = spec.image_size_field
    said = (
        f"{field} was left out and is {size}: no node has counted data set {spec.data.name!r} yet, so "
        f"the size of its images is not known. If they are smaller, cancel the job and submit it with {field} "
        "written out, or when `barlow datasets` shows the set as counted"
    )
    events.append(session, job, "warning", actor=caller.name, payload={"message": said})


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
        raise NameTaken(str(error)) from None
    except DependencyFailed as error:  # it failed after `resolve` had looked
        raise InvalidSpec([Fault("/backbone_from/job" if references.source else "/run/after", str(error))]) from None


def _backbone(session: Session, spec: Spec, job: Job) -> BackboneSpec | None:
    """The architecture: of the spec itself, of the job it evaluates, or none: raw pixels, and a backbone_from.file that
    brings its own, which the worker's host has."""
    if spec.backbone is not None:
        return spec.backbone
    wanted = spec.backbone_from_elsewhere
    if wanted is not None and wanted.torchvision is not None:
        return BackboneSpec(name=network_of(wanted.torchvision))
    if job.source_job_id is None:
        return None
    source = session.get(Job, job.source_job_id)
    assert source is not None, "a foreign key holds it"
    made = open_stored(source.spec).backbone_made
    return None if made is None else made.backbone
