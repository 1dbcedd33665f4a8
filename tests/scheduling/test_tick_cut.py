"""kill -9 of the scheduler between any two statements of a tick: nothing is lost and nothing is done twice."""

from __future__ import annotations

import secrets
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cutting import cut
from lab import Lab
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError

from service.database.tables import Attempt, Job, Slot
from service.ledger.states import AttemptOutcome, AttemptState, JobState
from service.local.servers import Postgres
from service.scheduling.tick import tick
from service.settings import Settings

LEASE = 3600.0
EVERY = 5
"""Of the statements of a tick, so many apart are tried by one test; together the tests try each."""
Facts = dict[str, Any]


@dataclass
class Prepared:
    """A database in which a tick has work of every kind, to be copied."""

    postgres: Postgres
    template: str
    runs: Path

    @contextmanager
    def copy(self) -> Iterator[Lab]:
        name = f"cut_{secrets.token_hex(6)}"
        self.postgres.create_database(name, template=self.template)
        runs = self.runs.with_name(name)
        shutil.copytree(self.runs, runs)
        lab = Lab(Settings(database_url=self.postgres.url(name), runs_dir=runs))
        try:
            yield lab
        finally:
            lab.engine.dispose()
            self.postgres.drop_database(name)
            shutil.rmtree(runs)


@pytest.fixture(scope="module")
def prepared(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    name = f"prepared_{secrets.token_hex(6)}"
    postgres.create_database(name, template="migrated")
    runs = tmp_path_factory.mktemp("cut") / "runs"
    runs.mkdir()
    lab = Lab(Settings(database_url=postgres.url(name), runs_dir=runs))
    prepare(lab)
    lab.engine.dispose()
    yield Prepared(postgres, name, runs)
    postgres.drop_database(name)


def prepare(lab: Lab) -> None:
    """Attempts to reap in three ways, a job to release, to place, to reserve for, to preempt for, reasons to write."""
    lab.node("gpu-1", slots=5)
    jobs = {name: lab.submit(name) for name in ("lost", "completed", "never accepted", "quarantined", "running")}
    lab.place()
    tries = {name: lab.attempt(job_id) for name, job_id in jobs.items()}
    for name, attempt in tries.items():
        if name != "never accepted":
            tries[name] = lab.accept(attempt)
    # A slot that has been in quarantine for long.
    lab.expire(tries["quarantined"])
    lab.reap()
    lab.cancel(jobs["quarantined"])
    lab.leave_outcome(tries["completed"], AttemptOutcome.OK)
    lab.node("gpu-2", slots=2)
    victim = lab.submit("victim", slots=2, preemptible=True)
    lab.start(victim)
    waits = lab.submit("released", after=[jobs["running"]])
    lab.node("gpu-3", slots=2)
    lab.start(lab.submit("half of gpu-3"))
    lab.submit("large", slots=2)
    lab.submit("urgent", slots=2, priority=1)
    lab.submit("waits for data", data="textures")
    lab.submit("too large", slots=8)
    for name in ("lost", "completed", "never accepted"):
        lab.expire(tries[name])
    with lab.sessions.begin() as session:
        hour = text("interval '1 hour'")
        alive = (Attempt.state != AttemptState.ENDED) & (Attempt.lease_expires_at > func.clock_timestamp())
        session.execute(update(Attempt).where(alive).values(lease_expires_at=Attempt.lease_expires_at + hour))
        session.execute(update(Slot).where(Slot.quarantined_at.is_not(None)).values(quarantined_at=func.now() - hour))
        session.execute(update(Job).where(Job.id == waits).values(after=[]))
        old = {"queued_at": func.now() - hour, "order_key": Job.order_key - 3600}
        session.execute(update(Job).where(Job.name == "large").values(old))


def look(lab: Lab) -> None:
    with lab.sessions() as session:
        tick(session, instance=uuid.UUID(int=1), lease_seconds=LEASE, may_reap=True, complete=lab.complete)


def facts(lab: Lab) -> Facts:
    """All that must be the same whether the scheduler died in between or not; names instead of what is random."""
    with lab.sessions() as session:
        jobs = {job.id: job for job in session.scalars(select(Job))}
        found: Facts = {
            job.name: (job.state, job.reason_code, job.reserved_node, job.preempting, job.restarts)
            for job in jobs.values()
        }
        for attempt in session.scalars(select(Attempt)):
            by = attempt.preempted_for and jobs[attempt.preempted_for].name
            found[f"{jobs[attempt.job_id].name} {attempt.number}"] = attempt.state, attempt.outcome, attempt.node, by
        for slot in session.scalars(select(Slot)):
            held = slot.attempt_id and jobs[session.get_one(Attempt, slot.attempt_id).job_id].name
            reported = slot.quarantine_reported_at is not None
            found[f"{slot.node} {slot.index}"] = held, slot.quarantined_at is not None, reported
    for job_id, job in jobs.items():
        found[f"history of {job.name}"] = lab.kinds(job_id)
    return found


@pytest.fixture(scope="module")
def undisturbed(prepared: Prepared) -> tuple[int, Facts]:
    """How many statements a tick sends, and what two ticks lead to."""
    with prepared.copy() as lab:
        with cut(lab.engine, lab.settings.database_url.get_secret_value()) as counted:
            look(lab)
        look(lab)
        lab.check()
        return counted.sent, facts(lab)


def test_the_tick_has_work_of_every_kind(undisturbed: tuple[int, Facts]) -> None:
    sent, found = undisturbed
    assert sent > 100
    assert found["completed"][0] == JobState.SUCCEEDED
    assert found["lost 1"][:2] == (AttemptState.ENDED, AttemptOutcome.LOST)
    assert found["never accepted 1"][:2] == (AttemptState.ENDED, AttemptOutcome.LOST)
    assert found["victim 1"] == (AttemptState.STARTING, None, "gpu-2", "urgent")
    assert found["large"][1:3] == ("reserved", "gpu-1")
    assert (found["lost"][1], found["never accepted"][1]) == ("placed", "behind")
    assert found["urgent"][1:4] == ("preempting", "gpu-2", True)
    assert found["released"][1] is not None
    assert "warning" in found["history of quarantined"]
    assert {found["waits for data"][1], found["too large"][1]} == {"no_data", "too_large"}


@pytest.mark.parametrize("first", [1, *(pytest.param(n, marks=pytest.mark.faults) for n in range(2, EVERY + 1))])
def test_a_tick_that_is_cut_anywhere_is_completed_by_the_next(
    prepared: Prepared, undisturbed: tuple[int, Facts], first: int
) -> None:
    sent, expected = undisturbed
    for number in range(first, sent + 1, EVERY):
        with prepared.copy() as lab:
            url = lab.settings.database_url.get_secret_value()
            with cut(lab.engine, url, before=number), pytest.raises(DBAPIError):
                look(lab)
            lab.check()
            look(lab)
            look(lab)
            lab.check()
            assert facts(lab) == expected, f"cut before statement {number}"
