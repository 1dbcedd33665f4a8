"""What one user may take of the queue: so many open jobs, and a priority within the bound of the role.

An admin is held back by neither: whoever sets the limits may pass them.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import func, literal, select
from sqlalchemy.orm import Session

from barlow_lab.specs import Fault, Spec
from service.admission.errors import InvalidSpec, TooManyOpenJobs
from service.callers import Caller, Role
from service.database.tables import Job
from service.ledger.states import JobState
from service.settings import Settings

_OPEN = [state for state in JobState if not state.terminal]


def priority_faults(spec: Spec, caller: Caller, settings: Settings) -> list[Fault]:
    """Why a spec asks for more priority than the role of the caller may. To stand back is free for everybody."""
    said = _too_much(spec.run.priority, caller, settings)
    return [] if said is None else [Fault("/run/priority", f"{said}; take a lower one, or ask an admin to submit it")]


def refuse_priority(job: Job, caller: Caller, settings: Settings) -> None:
    """The same for a job that is to be retried: what it was given, whoever gave it, the retry has, too.

    Raises:
        InvalidSpec
    """
    if (said := _too_much(job.priority, caller, settings)) is not None:
        remedy = f"submit its spec again with run.priority {settings.max_submitter_priority} or lower"
        raise InvalidSpec([Fault("", f"{said}; ask an admin to retry it, or {remedy}")])


def take_room(session: Session, caller: Caller, settings: Settings, jobs: int) -> None:
    """Let a user have `jobs` more open jobs: waiting, queued, running or paused ones.

    Whatever else locks rows in the transaction comes after it: further submissions of the user wait here for its end.

    Raises:
        TooManyOpenJobs
    """
    if caller.role is Role.ADMIN:
        return
    session.execute(select(func.pg_advisory_xact_lock(_number(caller.user))))
    most = settings.max_open_jobs
    some = select(literal(1)).where(Job.user_name == caller.user, Job.state.in_(_OPEN)).limit(most).subquery()
    there = session.scalar(select(func.count()).select_from(some)) or 0
    if there + jobs <= most:
        return
    said = (
        f"{caller.user} has {there:,} open jobs and asks for {jobs:,} more; a user may have {most:,} that wait, run or "
        "are paused (BARLOW_MAX_OPEN_JOBS of the API). Submit again when some have ended, cancel some, or ask an admin"
    )
    raise TooManyOpenJobs(said)


def _too_much(priority: int, caller: Caller, settings: Settings) -> str | None:
    most = settings.max_submitter_priority
    if caller.role is Role.ADMIN or priority <= most:
        return None
    return (
        f"priority {priority} is for admins; a {caller.role} may ask for up to {most} (BARLOW_MAX_SUBMITTER_PRIORITY)"
    )


def _number(user: str) -> int:
    return int.from_bytes(hashlib.sha256(f"open jobs of\0{user}".encode()).digest()[:8], signed=True)
