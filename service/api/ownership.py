"""Whose a job is: its user changes it, and admins do; everybody else with a token looks."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from service.api.auth import CallerDep
from service.api.deps import JobDep, SettingsDep
from service.api.problems import Problem
from service.callers import Caller, Role
from service.database.tables import Job
from service.settings import Settings


def may_change(caller: Caller, settings: Settings, job: Job) -> bool:
    """Whether a caller may cancel, pause, resume, retry or rebuild this job, if its state allows it."""
    if caller.role.may(Role.ADMIN):
        return True
    return caller.role.may(Role.SUBMITTER) and (settings.submitters_change_all or job.user_name == caller.user)


def _own_job(job: JobDep, caller: CallerDep, settings: SettingsDep) -> Job:
    if may_change(caller, settings, job):
        return job
    owner = "older than users are" if job.user_name is None else f"of user {job.user_name}"
    whom = "an admin" if job.user_name is None else f"{job.user_name} or an admin"
    raise Problem(
        "not-the-owner",
        f"job {job.name} is {owner}, and the token {caller.name} is of user {caller.user}; ask {whom}. Where every "
        "submitter is to change every job, the API is started with BARLOW_SUBMITTERS_CHANGE_ALL=true",
    )


OwnJobDep = Annotated[Job, Depends(_own_job, scope="function")]
"""The job that the path names, if the caller may change it; 404 when there is none, 403 when it is another user's."""
