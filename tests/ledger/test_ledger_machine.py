"""Random lives of jobs on the real database; after every step everything that must hold is checked."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from lab import LEASE, Lab
from sqlalchemy import select, text

from service.database.tables import Attempt, Job
from service.ledger import attempts, nodes
from service.ledger.states import AttemptState, JobState, Outcome

SLOTS = {"gpu-1": 3, "gpu-2": 2}
TABLES = "events, slots, attempts, jobs, experiments, nodes"


class Lives(RuleBasedStateMachine):
    """Users submit and cancel, the scheduler ticks, workers accept, renew, end, vanish and come back as ghosts."""

    lab: Lab

    def __init__(self) -> None:
        super().__init__()
        with self.lab.engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {TABLES} CASCADE"))
        self.lab.instances.clear()
        self.jobs: list[uuid.UUID] = []
        self.ended: dict[uuid.UUID, tuple[str, int]] = {}
        for name, slots in SLOTS.items():
            self.lab.node(name, slots=slots)

    @rule(data=st.data(), slots=st.integers(1, 3), restarts=st.integers(0, 2), priority=st.integers(-1, 1))
    def submit(self, data: st.DataObject, slots: int, restarts: int, priority: int) -> None:
        open_jobs = [job_id for job_id in self.jobs if self.lab.job(job_id).state not in ("failed", "cancelled")]
        after = data.draw(st.lists(st.sampled_from(open_jobs), max_size=2, unique=True)) if open_jobs else []
        self.jobs.append(self.lab.submit(after=after, slots=slots, max_restarts=restarts, priority=priority))

    @rule()
    def schedule(self) -> None:
        self.lab.reap()
        self.lab.release()
        self.lab.place()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.lab.cancel(data.draw(st.sampled_from(self.jobs)))

    @rule()
    def accept_all(self) -> None:
        for attempt in self.attempts(AttemptState.PLACED):
            assert self.lab.accept(attempt) is not None

    @rule(data=st.data())
    def renew_or_advance(self, data: st.DataObject) -> None:
        for attempt in self.attempts(AttemptState.STARTING, AttemptState.RUNNING):
            with self.lab.sessions.begin() as session:
                assert attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE) is not None
                if data.draw(st.booleans()):
                    attempts.running(session, attempt.id, attempt.token)
                else:
                    attempts.stopping(session, attempt.id, attempt.token, why="test")

    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def end_one(self, data: st.DataObject, outcome: Outcome) -> None:
        if live := self.attempts(AttemptState.STARTING, AttemptState.RUNNING, AttemptState.STOPPING):
            attempt = data.draw(st.sampled_from(live))
            assert self.lab.end(attempt, outcome)
            self.lab.skip_backoff(attempt.job_id)

    @rule(data=st.data())
    def lose_one(self, data: st.DataObject) -> None:
        if live := self.attempts(*(set(AttemptState) - {AttemptState.ENDED})):
            self.lab.expire(data.draw(st.sampled_from(live)))
            self.lab.reap()

    @rule(outcome=st.sampled_from(Outcome))
    def ghosts_write(self, outcome: Outcome) -> None:
        for attempt in self.attempts(AttemptState.ENDED):
            with self.lab.sessions.begin() as session:
                assert attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE) is None
                assert not attempts.running(session, attempt.id, attempt.token)
                assert not attempts.stopping(session, attempt.id, attempt.token, why="late")
            assert self.lab.end(attempt, outcome) == (attempt.outcome == outcome)
            assert self.lab.accept(attempt) is None

    @rule(name=st.sampled_from(sorted(SLOTS)))
    def replace_a_worker(self, name: str) -> None:
        self.lab.unseen(name)
        self.lab.node(name, slots=SLOTS[name], instance=uuid.uuid4())

    @rule(name=st.sampled_from(sorted(SLOTS)))
    def release_quarantine(self, name: str) -> None:
        with self.lab.sessions.begin() as session:
            nodes.release_quarantined(session, name, range(SLOTS[name]))

    @invariant()
    def everything_holds(self) -> None:
        self.lab.check()

    @invariant()
    def what_is_terminal_stands_still(self) -> None:
        with self.lab.sessions() as session:
            for job in session.scalars(select(Job)):
                if JobState(job.state).terminal:
                    assert self.ended.setdefault(job.id, (job.state, job.event_seq)) == (job.state, job.event_seq)
                else:
                    assert job.id not in self.ended

    def teardown(self) -> None:
        """Left alone, every job comes to an end: none is forgotten."""
        for name in SLOTS:
            self.lab.node(name, slots=SLOTS[name])
        for _ in range(3 * len(self.jobs) + 3):
            self.schedule()
            self.accept_all()
            for attempt in self.attempts(AttemptState.STARTING, AttemptState.RUNNING, AttemptState.STOPPING):
                assert self.lab.end(attempt, Outcome.OK)
        assert all(JobState(self.lab.job(job_id).state).terminal for job_id in self.jobs)
        assert all(slot.attempt_id is None for name in SLOTS for slot in self.lab.slots(name))
        self.lab.check()

    def attempts(self, *states: AttemptState) -> list[Attempt]:
        with self.lab.sessions() as session:
            return list(session.scalars(select(Attempt).where(Attempt.state.in_(states)).order_by(Attempt.id)))


@pytest.mark.timeout(300)
def test_random_lives(lab: Lab) -> None:
    machine = type("LivesHere", (Lives,), {"lab": lab})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        ),
    )
