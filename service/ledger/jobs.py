"""How jobs come to be: submitted, or as the retry of one that has ended."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from barlow_lab.specs import Spec, digest
from service.database.tables import Experiment, Job
from service.ledger import events
from service.ledger.dependants import dependencies, order_key, unfinished, waits_for
from service.ledger.errors import DependencyFailed, JobNameTaken, NotFound
from service.ledger.moves import lock_job, require
from service.ledger.states import JobState, Verb

RETRY_SUFFIX = re.compile(r"-retry[0-9]+$")
"""The end of the name of a job that was made in place of another."""


def ensure_experiment(session: Session, name: str) -> Experiment:
    """The experiment of this name, made if it is new."""
    session.execute(insert(Experiment).values(name=name).on_conflict_do_nothing())
    return session.scalars(select(Experiment).where(Experiment.name == name)).one()


def submit(
    session: Session,
    *,
    experiment_id: uuid.UUID,
    spec: Spec,
    name: str | None,
    after: Sequence[uuid.UUID],
    source_job_id: uuid.UUID | None,
    actor: str,
    user: str | None,
) -> Job:
    """Add a job of `user`; it waits for `after` and for the job whose backbone it takes, until they have succeeded.

    Without a name here and in the spec it is called by its kind and the end of its id.

    Raises:
        NotFound: a job to wait for does not exist.
        DependencyFailed: a job to wait for has failed or was cancelled.
        JobNameTaken: the experiment has a job of this name.
    """
    job_id = session.scalars(select(func.uuidv7())).one()
    row = {
        "id": job_id,
        "experiment_id": experiment_id,
        "kind": spec.kind,
        "name": name or spec.name or f"{spec.kind}-{str(job_id)[-12:]}",
        "labels": spec.run.labels,
        "spec": spec.resolved(),
        "spec_digest": digest(spec),
        "priority": spec.run.priority,
        "slots": spec.resources.slots,
        "nodes": spec.resources.nodes,
        "user_name": user,
    }
    submitted = _add(session, row, after, source_job_id, actor)
    if submitted is None:
        raise JobNameTaken(f"the experiment has a job named {row['name']!r} already; choose another name or experiment")
    return submitted


def retry(session: Session, job_id: uuid.UUID, *, actor: str, user: str | None) -> Job:
    """A new job of the same spec in place of one that failed or was cancelled; its worker starts it from the old
    one's newest valid checkpoint.

    It waits for what the old one waited for; where that has failed and was retried itself, for the newest retry. It
    is `user`'s, whoever's the old one was.

    Raises:
        NotFound: there is no such job.
        IllegalVerb: the job has not failed.
        DependencyFailed: a job to wait for has failed and was not retried.
    """
    old = lock_job(session, job_id)
    require(old, Verb.RETRY)
    row = {
        name: getattr(old, name)
        for name in ("experiment_id", "kind", "labels", "spec", "spec_digest", "priority", "slots", "nodes")
    }
    after = [_newest_retry(session, needed) for needed in old.after]
    source = _newest_retry(session, old.source_job_id) if old.source_job_id is not None else None
    root = RETRY_SUFFIX.sub("", old.name)
    for number in itertools.count(1):
        # 100 characters is the longest a name may be.
        suffix = f"-retry{number}"
        named = {**row, "retry_of": old.id, "user_name": user, "name": root[: 100 - len(suffix)] + suffix}
        new = _add(session, named, after, source, actor)
        if new is not None:
            return new
    raise AssertionError("numbers do not end")


def _newest_retry(session: Session, job_id: uuid.UUID) -> uuid.UUID:
    """The job, or what was made in its place last: the newest retry of its newest retry, and so on."""
    while True:
        newest = select(Job.id).where(Job.retry_of == job_id).order_by(Job.id.desc()).limit(1)
        found = session.scalars(newest).one_or_none()
        if found is None:
            return job_id
        job_id = found


def _add(
    session: Session,
    facts: dict[str, Any],
    after: Sequence[uuid.UUID],
    source_job_id: uuid.UUID | None,
    actor: str,
) -> Job | None:
    """Insert a job that waits for others or is queued; None if the experiment has a job of its name.

    Raises:
        NotFound, DependencyFailed: see `submit`.
    """
    waited = list(dict.fromkeys([*after, *([source_job_id] if source_job_id else [])]))
    needed = dependencies(session, waited)
    if absent := set(waited) - {job.id for job in needed}:
        raise NotFound(f"there is no job {min(absent)} to wait for")
    for job in needed:
        if job.state in (JobState.FAILED, JobState.CANCELLED):
            raise DependencyFailed(
                f"job {job.name} ({job.id}) {JobState(job.state).words}; retry it and wait for the new job"
            )
    missing = unfinished(needed)
    reason_code, reason = waits_for(missing) if missing else (None, None)
    row = {
        **facts,
        "source_job_id": source_job_id,
        "after": waited,
        "state": JobState.WAITING if missing else JobState.QUEUED,
        "reason_code": reason_code,
        "reason": reason,
        "order_key": order_key(facts["priority"]),
        "queued_at": None if missing else func.clock_timestamp(),
    }
    unique = insert(Job).values(row).on_conflict_do_nothing(index_elements=["experiment_id", "name"])
    added = session.scalars(unique.returning(Job)).one_or_none()
    if added is None:
        return None
    payload = {"state": added.state, "reason_code": reason_code, "reason": reason}
    if added.retry_of is not None:
        payload["retry_of"] = str(added.retry_of)
    events.append(session, added, "submitted", actor=actor, payload=payload)
    events.wake_scheduler(session, str(added.id))
    return added
