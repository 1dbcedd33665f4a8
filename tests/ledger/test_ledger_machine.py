"""Random lives of jobs on the real database; after every step everything that must hold is checked."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from lab import LEASE, Lab
from sqlalchemy import select, text

from service.database.engine import make_engine
from service.database.tables import Attempt, Job
from service.ledger import attempts, nodes, reservations
from service.ledger.errors import DependencyFailed, IllegalVerb
from service.ledger.moves import verbs_of
from service.ledger.states import AttemptOutcome, AttemptState, JobState, Verb

SLOTS = {"gpu-1": 3, "gpu-2": 2}
ACCEPTED = (AttemptState.STARTING, AttemptState.RUNNING, AttemptState.STOPPING)
TABLES = "events, slots, attempts, jobs, experiments, nodes"


class Lives(RuleBasedStateMachine):
    """Users submit, cancel, pause, resume and retry, the scheduler ticks, reserves and preempts, workers accept, renew,
    end, drain, vanish with or without last words, and come back as ghosts."""

    lab: Lab

    def __init__(self) -> None:
        super().__init__()
        owner = make_engine(self.lab.settings.as_owner())
        with owner.begin() as connection:
            connection.execute(text(f"TRUNCATE {TABLES} CASCADE"))
        owner.dispose()
        self.lab.instances.clear()
        self.jobs: list[uuid.UUID] = []
        self.rows: list[Attempt] = []
        self.ended: dict[uuid.UUID, tuple[str, int]] = {}
        for name, slots in SLOTS.items():
            self.lab.node(name, slots=slots)

    @initialize(sizes=st.lists(st.integers(1, 3), min_size=4, max_size=6), restarts=st.integers(0, 2))
    def a_pipeline(self, sizes: list[int], restarts: int) -> None:
        for index, slots in enumerate(sizes):
            after = self.jobs[-1:] if index % 3 == 2 else []
            self.jobs.append(self.lab.submit(after=after, slots=slots, max_restarts=restarts))
        self.schedule()
        self.accept_all()

    @rule(
        data=st.data(),
        slots=st.integers(1, 3),
        restarts=st.integers(0, 2),
        priority=st.integers(-1, 1),
        preemptible=st.booleans(),
    )
    def submit(self, data: st.DataObject, slots: int, restarts: int, priority: int, preemptible: bool) -> None:
        open_jobs = [job_id for job_id in self.jobs if self.lab.job(job_id).state not in ("failed", "cancelled")]
        after = data.draw(st.lists(st.sampled_from(open_jobs), max_size=2, unique=True)) if open_jobs else []
        run = {"max_restarts": restarts, "priority": priority, "preemptible": preemptible}
        self.jobs.append(self.lab.submit(after=after, slots=slots, **run))

    @rule()
    def schedule(self) -> None:
        self.lab.reap()
        self.lab.release()
        self.lab.place()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.lab.cancel(data.draw(st.sampled_from(self.jobs)))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def pause_or_resume(self, data: st.DataObject) -> None:
        job = self.lab.job(data.draw(st.sampled_from(self.jobs)))
        if Verb.RESUME in verbs_of(job):
            self.lab.resume(job.id)
        elif Verb.PAUSE in verbs_of(job):
            self.lab.pause(job.id)
        else:
            with pytest.raises(IllegalVerb):
                self.lab.pause(job.id)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job = self.lab.job(data.draw(st.sampled_from(sorted(self.ended))))
        try:
            new = self.lab.retry(job.id)
        except IllegalVerb:
            assert job.state == JobState.SUCCEEDED
        except DependencyFailed:
            assert job.after
        else:
            assert self.lab.job(new).retry_of == job.id
            self.jobs.append(new)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), node=st.sampled_from([*SLOTS, None]))
    def reserve_and_preempt(self, data: st.DataObject, node: str | None) -> None:
        by = self.lab.job(data.draw(st.sampled_from(self.jobs)))
        placed = {attempt.job_id for attempt in self.attempts(AttemptState.PLACED)}
        with self.lab.sessions.begin() as session:
            kept = reservations.reserve(session, by.id, node, preempting=True)
        assert (kept is not None) == (by.state == JobState.QUEUED and by.id not in placed)
        for attempt in self.attempts(AttemptState.PLACED, *ACCEPTED):
            victim = self.lab.job(attempt.job_id)
            with self.lab.sessions.begin() as session:
                told = reservations.request_preemption(session, attempt.id, by=by)
            lower = victim.preemptible and victim.priority < by.priority
            assert told == (lower and attempt.preempted_at is None)

    @precondition(lambda self: self.known(AttemptState.PLACED))
    @rule()
    def accept_all(self) -> None:
        for attempt in self.attempts(AttemptState.PLACED):
            assert self.lab.accept(attempt) is not None

    @precondition(lambda self: self.known(AttemptState.STARTING, AttemptState.RUNNING))
    @rule(data=st.data())
    def renew_or_advance(self, data: st.DataObject) -> None:
        for attempt in self.attempts(AttemptState.STARTING, AttemptState.RUNNING):
            with self.lab.sessions.begin() as session:
                assert attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE) is not None
                if data.draw(st.booleans()):
                    attempts.running(session, attempt.id, attempt.token)
                else:
                    attempts.stopping(session, attempt.id, attempt.token, why="test")

    @precondition(lambda self: self.known(*ACCEPTED))
    @rule(data=st.data(), outcome=st.sampled_from(AttemptOutcome))
    def end_one(self, data: st.DataObject, outcome: AttemptOutcome) -> None:
        attempt = data.draw(st.sampled_from(self.attempts(*ACCEPTED)))
        assert self.lab.end(attempt, outcome)
        self.lab.skip_backoff(attempt.job_id)
        self.schedule()

    @precondition(lambda self: self.known(AttemptState.PLACED, *ACCEPTED))
    @rule(outcomes=st.lists(st.sampled_from(AttemptOutcome), min_size=4, max_size=4))
    def all_end(self, outcomes: list[AttemptOutcome]) -> None:
        self.accept_all()
        for attempt, outcome in zip(self.attempts(*ACCEPTED), outcomes, strict=False):
            assert self.lab.end(attempt, outcome)
            self.lab.skip_backoff(attempt.job_id)
        self.schedule()

    @precondition(lambda self: self.known(AttemptState.PLACED, *ACCEPTED))
    @rule(data=st.data())
    def lose_one(self, data: st.DataObject) -> None:
        self.lab.expire(data.draw(st.sampled_from(self.attempts(AttemptState.PLACED, *ACCEPTED))))
        self.lab.reap()

    @precondition(lambda self: self.known(AttemptState.ENDED))
    @rule(outcome=st.sampled_from(AttemptOutcome))
    def ghosts_write(self, outcome: AttemptOutcome) -> None:
        for attempt in self.attempts(AttemptState.ENDED):
            with self.lab.sessions.begin() as session:
                assert attempts.renew(session, attempt.id, attempt.token, lease_seconds=LEASE) is None
                assert not attempts.running(session, attempt.id, attempt.token)
                assert not attempts.stopping(session, attempt.id, attempt.token, why="late")
            assert self.lab.end(attempt, outcome) == (attempt.outcome == outcome)
            assert self.lab.accept(attempt) is None

    @precondition(lambda self: self.known(*ACCEPTED))
    @rule(data=st.data(), outcome=st.sampled_from([AttemptOutcome.OK, AttemptOutcome.STOPPED, AttemptOutcome.CRASHED]))
    def worker_dies_after_the_outcome(self, data: st.DataObject, outcome: AttemptOutcome) -> None:
        attempt = data.draw(st.sampled_from(self.attempts(*ACCEPTED)))
        self.lab.leave_outcome(attempt, outcome)
        self.lab.expire(attempt)
        self.lab.reap()
        assert self.lab.attempt_row(attempt.id).outcome == outcome
        self.lab.skip_backoff(attempt.job_id)

    @rule(name=st.sampled_from(sorted(SLOTS)))
    def drain_a_worker(self, name: str) -> None:
        with self.lab.sessions.begin() as session:
            assert nodes.begin_drain(session, name, self.lab.instances[name])
        assert not [a for a in self.attempts(AttemptState.PLACED) if a.node == name]
        for attempt in self.attempts(*ACCEPTED):
            if attempt.node == name:
                assert self.lab.end(attempt, AttemptOutcome.DRAINED)
        with self.lab.sessions.begin() as session:
            assert nodes.leave(session, name, self.lab.instances[name], self.lab.complete)
        self.lab.node(name, slots=SLOTS[name], instance=uuid.uuid4())

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
        self.attempts()

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
        for job_id in self.jobs:
            if Verb.RESUME in verbs_of(self.lab.job(job_id)):
                self.lab.resume(job_id)
        for _ in range(3 * len(self.jobs) + 3):
            self.schedule()
            self.accept_all()
            for attempt in self.attempts(*ACCEPTED):
                assert self.lab.end(attempt, AttemptOutcome.OK)
        assert all(JobState(self.lab.job(job_id).state).terminal for job_id in self.jobs)
        assert all(slot.attempt_id is None for name in SLOTS for slot in self.lab.slots(name))
        self.lab.check()

    def attempts(self, *states: AttemptState) -> list[Attempt]:
        with self.lab.sessions() as session:
            self.rows = list(session.scalars(select(Attempt).order_by(Attempt.id)))
        return self.known(*states)

    def known(self, *states: AttemptState) -> list[Attempt]:
        """As of the last step: preconditions are asked often."""
        return [attempt for attempt in self.rows if attempt.state in states]


@pytest.mark.timeout(300)
def test_random_lives(lab: Lab) -> None:
    machine = type("LivesHere", (Lives,), {"lab": lab})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        ),
    )
