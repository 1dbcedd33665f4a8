"""Two workers share one queue; one of them vanishes, or is of another version."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from deployment import QUICK, Deployment, run
from fault_stack import pretrain
from oracle import Oracle

LEASE = float(QUICK["BARLOW_LEASE_SECONDS"])


@pytest.fixture
def two(system: Deployment) -> Iterator[Deployment]:
    """The system with a second worker, node-2, on the same network."""
    system.compose("--profile", "two", "up", "--detach", "--wait", "worker-2")
    system.wait(lambda: _live(system) == {"node-1", "node-2"}, "both nodes are there")
    yield system
    system.compose("--profile", "two", "rm", "--stop", "--force", "worker-2")


def test_two_workers_share_the_queue_and_no_job_runs_twice(two: Deployment, oracle: Oracle) -> None:
    oracle.prepare(pretrain(epochs=20))
    jobs = [two.submit(pretrain(epochs=20), f"shared-{index}") for index in range(6)]
    for job_id in jobs:
        oracle.check(job_id, outcomes=["ok"])
    assert {attempt.node for job_id in jobs for attempt in two.attempts(job_id)} == {"node-1", "node-2"}


def test_a_worker_that_vanishes_is_noticed_in_its_lease_and_the_other_goes_on(two: Deployment, oracle: Oracle) -> None:
    spec = pretrain(epochs=60)
    oracle.prepare(spec)
    # Four slots in all: two jobs on each node.
    jobs = [two.submit(spec, f"vanishes-{index}") for index in range(4)]
    for job_id in jobs:
        two.wait(lambda job_id=job_id: two.reached(job_id, 30), "the job is in mid-run")
    theirs = [job_id for job_id in jobs if _node(two, job_id) == "node-2"]
    assert len(theirs) == 2
    run(["docker", "kill", two.container("worker-2")])
    killed = time.monotonic()
    for job_id in theirs:
        two.wait(lambda job_id=job_id: two.outcomes(job_id)[0] == "lost", "it is noticed", LEASE + 10)
    print(f"noticed after {time.monotonic() - killed:.1f} s of a lease of {LEASE:g} s")
    for job_id in sorted(jobs, key=theirs.__contains__):  # those of node-1 first: they hold the slots that are left
        two.wait_for_end(job_id)
    for job_id in theirs:
        assert [attempt.node for attempt in two.attempts(job_id)] == ["node-2", "node-1"]
        assert two.job(job_id).restarts == 0, "a lost node is not the job's fault"
    two.compose("--profile", "two", "up", "--detach", "--wait", "worker-2")  # it says that its slots are empty
    for job_id in jobs:
        oracle.check(job_id)


def test_a_worker_of_another_schema_version_is_refused_with_the_reason(system: Deployment) -> None:
    with psycopg.connect(system.endpoints["owner"], autocommit=True) as owner:
        ((was,),) = owner.execute("SELECT version_num FROM alembic_version")
        owner.execute("UPDATE alembic_version SET version_num = '9999'")
        try:
            system.compose("--profile", "two", "up", "--detach", "--no-deps", "worker-2")
            reason = f"the run database is at schema 9999, and this version works with {was}"
            system.wait(lambda: reason in system.compose("--profile", "two", "logs", "worker-2"), "it says why")
            assert "node-2" not in _live(system)
        finally:
            owner.execute("UPDATE alembic_version SET version_num = %s", [was])
            system.compose("--profile", "two", "rm", "--stop", "--force", "worker-2")


def _live(system: Deployment) -> set[str]:
    return {node.name for node in system.ask(lambda client: client.nodes()).items if node.live}


def _node(system: Deployment, job_id: uuid.UUID) -> str:
    return str(system.attempts(job_id)[-1].node)
