"""What a submission is refused for, as admission says it, without a server in front."""

from __future__ import annotations

from typing import Any

import pytest
from api_kit import KNN, PRETRAIN
from lab import Lab
from sqlalchemy import func, select

from service.admission.errors import InvalidSpec, NameTaken, TooManyOpenJobs
from service.admission.reading import read_experiment, read_job
from service.admission.submission import planned_job, submit_experiment, submit_job
from service.callers import Caller, Role
from service.database.tables import Experiment, Job

ANA = Caller("ana-laptop", "ana", Role.SUBMITTER)
NOT_THERE = {**KNN, "backbone_from": {"job": "pretrain-0"}}


def submit(lab: Lab, body: dict[str, Any]) -> None:
    with lab.sessions.begin() as session:
        submit_job(session, lab.settings, read_job(body), "default", caller=ANA)


def submit_all(lab: Lab, name: str, jobs: dict[str, Any]) -> None:
    with lab.sessions.begin() as session:
        body = read_experiment({"name": name, "jobs": jobs}, 500)
        submit_experiment(session, lab.settings, body, caller=ANA)


def jobs_of(lab: Lab) -> int:
    with lab.sessions() as session:
        return session.scalars(select(func.count()).select_from(Job)).one()


def test_all_faults_come_with_their_pointers(lab: Lab) -> None:
    body: dict[str, Any] = {
        **NOT_THERE,
        "k": 0,
        "run": {"priority": 1000, "after": ["nobody"]},
        "data": {"name": "texture"},
    }
    lab.node()
    with pytest.raises(InvalidSpec) as refused:
        submit(lab, body)
    found = [fault.pointer for fault in refused.value.faults]
    assert sorted(found) == ["/backbone_from/job", "/data/name", "/k", "/run/after/0", "/run/priority"]
    said = [f"{fault.pointer}: {fault.message}" for fault in refused.value.faults]
    assert str(refused.value) == "; ".join(said)
    assert refused.value.left_out == 0
    jobs = {f"job-{i}": {**PRETRAIN, "epochs": 0, "run": {"priority": 1000 + i}} for i in range(70)}
    with pytest.raises(InvalidSpec, match="and 40 more: mend these first") as refused:
        submit_all(lab, "many", jobs)
    assert (len(refused.value.faults), refused.value.left_out) == (100, 40)
    assert jobs_of(lab) == 0


def test_a_name_is_taken_once(lab: Lab) -> None:
    submit(lab, {**PRETRAIN, "name": "one"})
    with pytest.raises(NameTaken, match="has a job named 'one' already") as refused:
        submit(lab, {**PRETRAIN, "name": "one"})
    assert [(fault.pointer, fault.message) for fault in refused.value.faults] == [("/name", str(refused.value))]
    with pytest.raises(NameTaken, match="there is an experiment 'default'"):
        submit_all(lab, "default", {"two": PRETRAIN})


def test_a_user_has_so_many_open_jobs(lab: Lab) -> None:
    lab.settings = lab.settings.model_copy(update={"max_open_jobs": 1})
    submit(lab, PRETRAIN)
    with pytest.raises(TooManyOpenJobs, match="ana has 1 open jobs and asks for 1 more") as refused:
        submit(lab, PRETRAIN)
    assert refused.value.faults == []


def test_a_planned_job_is_there_until_it_is_looked_at(lab: Lab) -> None:
    lab.node(slots=2)
    with lab.sessions.begin() as session:
        body = read_job({**PRETRAIN, "data": {"name": "digits"}})
        with planned_job(session, lab.settings, body, "new", caller=ANA) as (job, needs):
            assert (job.kind, job.state) == ("pretrain", "queued")
            assert (needs.images, needs.steps_per_epoch, needs.steps) == (1437, 14, 28)
            assert [(fit.node, fit.fits) for fit in needs.fits] == [("gpu-1", True)]
    assert jobs_of(lab) == 0
    with lab.sessions() as session:
        assert session.scalar(select(Experiment)) is None
