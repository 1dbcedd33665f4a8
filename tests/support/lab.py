"""A run database with nodes and jobs in it, for tests of the ledger and the scheduler."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from barlow_lab.run_folder import attempt_folder, run_folder
from barlow_lab.specs import parse_spec
from service.completion import Completion
from service.database.engine import make_engine, session_factory
from service.database.tables import Attempt, Event, Job, Node, Slot
from service.ledger import attempts, jobs, nodes, requests
from service.ledger.states import (
    ATTEMPT_MOVES,
    JOB_MOVES,
    AttemptEvent,
    AttemptOutcome,
    AttemptState,
    JobEvent,
    JobState,
)
from service.scheduling import tick
from service.settings import Settings

LEASE = 60.0
BACKOFF = 5.0
DIGITS = {"digits": {"splits": {"train": 1, "test": 1}, "classes": 10}}


class Lab:
    """Short ways to do what the API, the scheduler and a worker do; every call is a committed transaction."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = make_engine(settings)
        self.sessions = session_factory(self.engine)
        self.instances: dict[str, uuid.UUID] = {}
        self.complete = Completion(settings.runs_dir, backoff_seconds=BACKOFF)

    def node(self, name: str = "gpu-1", slots: int = 2, **changed: Any) -> None:
        instance = changed.pop("instance", None) or self.instances.get(name) or uuid.uuid4()
        report = changed.pop("report", None) or [
            nodes.SlotReport(index, "cpu", f"{name}-cpu-{index}", 2**30) for index in range(slots)
        ]
        facts: dict[str, Any] = {"versions": {}, "data_sets": DIGITS, "cores": 8, "memory_bytes": 2**34}
        facts |= {"lease_seconds": LEASE, **changed}
        with self.sessions.begin() as session:
            nodes.register(session, name=name, instance=instance, slots=report, complete=self.complete, **facts)
        self.instances[name] = instance

    def submit(self, name: str | None = None, **given: Any) -> uuid.UUID:
        """A small pretraining job; `given`: after, source, slots, data, and the fields of the spec's `run`."""
        with self.sessions.begin() as session:
            return self.submit_in(session, name, **given)

    def submit_in(
        self,
        session: Session,
        name: str | None = None,
        *,
        after: Sequence[uuid.UUID] = (),
        source: uuid.UUID | None = None,
        slots: int = 1,
        data: str = "digits",
        **run: Any,
    ) -> uuid.UUID:
        """The same in a transaction that the caller commits."""
        spec = {"kind": "pretrain", "data": data, "batch_size": 64 * slots, "resources": {"slots": slots}, "run": run}
        return jobs.submit(
            session,
            experiment_id=jobs.ensure_experiment(session, "lab").id,
            spec=parse_spec(spec),
            name=name,
            after=after,
            source_job_id=source,
            actor="test",
            user=None,
        ).id

    def cancel(self, job_id: uuid.UUID, actor: str = "test") -> Job:
        with self.sessions.begin() as session:
            return requests.request_cancel(session, job_id, actor=actor)

    def pause(self, job_id: uuid.UUID, actor: str = "test") -> Job:
        with self.sessions.begin() as session:
            return requests.request_pause(session, job_id, actor=actor)

    def resume(self, job_id: uuid.UUID, actor: str = "test") -> Job:
        with self.sessions.begin() as session:
            return requests.resume(session, job_id, actor=actor)

    def retry(self, job_id: uuid.UUID, actor: str = "test") -> uuid.UUID:
        with self.sessions.begin() as session:
            return jobs.retry(session, job_id, actor=actor, user=None).id

    def place(self) -> None:
        with self.sessions() as session:
            tick.place(session, lease_seconds=LEASE)

    def release(self) -> None:
        with self.sessions() as session:
            tick.release(session)

    def reap(self) -> None:
        with self.sessions() as session:
            tick.reap(session, self.complete)

    def lose(self, attempt: Attempt) -> None:
        """Have the lease of an attempt run out, and the scheduler notice it.

        A worker that lives may renew it in between. One that was frozen or killed in a transaction holds the job until
        the server ends that, after 20 s: a scheduler passes over it and looks again.
        """
        deadline = time.monotonic() + 30
        while self.attempt_row(attempt.id).outcome is None:
            assert time.monotonic() < deadline, "nobody could end the attempt"
            self.expire(attempt)
            self.reap()
            time.sleep(0.05)

    def accept(self, attempt: Attempt, node: str | None = None, instance: uuid.UUID | None = None) -> Attempt | None:
        node = node or attempt.node
        with self.sessions.begin() as session:
            instance = instance or session.get_one(Node, node).instance
            return attempts.accept(session, attempt.id, node=node, instance=instance, lease_seconds=LEASE)

    def start(self, job_id: uuid.UUID) -> Attempt:
        """Place a queued job (the only one that fits) and have its node accept it."""
        self.place()
        accepted = self.accept(self.attempt(job_id))
        assert accepted is not None
        return accepted

    def end(self, attempt: Attempt, outcome: AttemptOutcome, message: str = "said so", **given: Any) -> bool:
        facts: dict[str, Any] = {"result": None, "error": None, "actor": "node:test", "backoff_seconds": BACKOFF}
        with self.sessions.begin() as session:
            return attempts.end(session, attempt.id, attempt.token, outcome=outcome, message=message, **facts | given)

    def run(self, job_id: uuid.UUID, outcome: AttemptOutcome, message: str = "said so", **given: Any) -> Job:
        """One attempt of a queued job from placement to its end."""
        self.skip_backoff(job_id)
        assert self.end(self.start(job_id), outcome, message, **given)
        return self.job(job_id)

    def skip_backoff(self, job_id: uuid.UUID) -> None:
        """As if the wait before the retry were over."""
        with self.sessions.begin() as session:
            waits = update(Job).where(Job.id == job_id, Job.not_before.is_not(None))
            session.execute(waits.values(not_before=func.clock_timestamp()))

    def expire(self, attempt: Attempt) -> None:
        """As if the lease had run out a second ago."""
        with self.sessions.begin() as session:
            late = func.clock_timestamp() - text("interval '1 second'")
            session.execute(update(Attempt).where(Attempt.id == attempt.id).values(lease_expires_at=late))

    def leave_outcome(self, attempt: Attempt, outcome: AttemptOutcome, *, reason: str | None = None) -> None:
        """The outcome.json of an attempt's trainer, with the backbone it exported; `reason`: what it stopped for."""
        folder = attempt_folder(run_folder(self.settings.runs_dir, attempt.job_id), attempt.number)
        exported = folder / "backbone"
        exported.mkdir(parents=True, exist_ok=True)
        (exported / "model.safetensors").write_bytes(b"weights")
        said = {"outcome": outcome, "message": "said so", "result": {"loss": 1.0}, "traceback": None, "step": 7}
        whole = {**said, "backbone": "backbone", "reason": reason, "token": str(attempt.token)}
        (folder / "outcome.json").write_text(json.dumps(whole))

    def attempt_row(self, attempt_id: uuid.UUID) -> Attempt:
        with self.sessions() as session:
            return session.get_one(Attempt, attempt_id)

    def unseen(self, name: str) -> None:
        """As if the node had been silent for ten leases."""
        with self.sessions.begin() as session:
            long_ago = func.clock_timestamp() - text(f"interval '{10 * LEASE} seconds'")
            session.execute(update(Node).where(Node.name == name).values(seen_at=long_ago))

    def job(self, job_id: uuid.UUID) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job_id)

    def attempt(self, job_id: uuid.UUID) -> Attempt:
        """The newest attempt of a job."""
        with self.sessions() as session:
            newest = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number.desc()).limit(1)
            return session.scalars(newest).one()

    def slots(self, node: str = "gpu-1") -> list[Slot]:
        with self.sessions() as session:
            return list(session.scalars(select(Slot).where(Slot.node == node).order_by(Slot.index)))

    def events(self, job_id: uuid.UUID) -> list[Event]:
        with self.sessions() as session:
            return list(session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.seq)))

    def kinds(self, job_id: uuid.UUID) -> list[str]:
        return [event.kind for event in self.events(job_id)]

    def check(self) -> None:
        """What must hold at any time, whatever happened."""
        with self.sessions() as session:
            found = session.scalars(select(Job)).all()
            events: dict[uuid.UUID, list[Event]] = {job.id: [] for job in found}
            for event in session.scalars(select(Event).order_by(Event.job_id, Event.seq)):
                events[event.job_id].append(event)
            tries: dict[uuid.UUID, list[Attempt]] = {job.id: [] for job in found}
            for attempt in session.scalars(select(Attempt).order_by(Attempt.job_id, Attempt.number)):
                tries[attempt.job_id].append(attempt)
            slots = session.scalars(select(Slot)).all()
        held: dict[uuid.UUID, list[Slot]] = {}
        for slot in slots:
            if slot.attempt_id is not None:
                held.setdefault(slot.attempt_id, []).append(slot)
        for job in found:
            _check_job(job, events[job.id], tries[job.id])
            for attempt in tries[job.id]:
                mine = held.pop(attempt.id, [])
                assert all(slot.node == attempt.node for slot in mine)
                if attempt.state == AttemptState.ENDED:
                    assert all(slot.quarantined_at is not None for slot in mine)
                else:
                    assert len(mine) == job.slots
        assert held == {}


def _check_job(job: Job, events: Sequence[Event], rows: Sequence[Attempt]) -> None:
    """The events replay, by the tables of moves, to the job's state and to that of each of its attempts."""
    assert [event.seq for event in events] == list(range(1, job.event_seq + 1))
    assert events[0].kind == "submitted"
    state = JobState(events[0].payload["state"])
    tries: dict[int, AttemptState] = {}
    for event in events[1:]:
        number = event.payload.get("attempt")
        if event.kind in set(JobEvent):
            state = JOB_MOVES[state, JobEvent(event.kind)]
        elif event.kind in set(AttemptEvent):
            tries[number] = ATTEMPT_MOVES[tries[number], AttemptEvent(event.kind)]
        elif event.kind == "attempt_placed":
            tries[number] = AttemptState.PLACED
    assert state == job.state
    assert tries == {attempt.number: attempt.state for attempt in rows}
    assert list(tries) == list(range(1, len(tries) + 1))
    assert state.terminal == (job.finished_at is not None)
    assert job.reserved_node is None or state is JobState.QUEUED
    assert job.reserved_node is not None or not job.preempting
    live = [attempt.state for attempt in rows if attempt.state != AttemptState.ENDED]
    assert len(live) <= 1
    if state is JobState.RUNNING:
        assert live[0] != AttemptState.PLACED
    else:
        assert live in ([], [AttemptState.PLACED] if state is JobState.QUEUED else [])
