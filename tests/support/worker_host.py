"""A worker's supervisor in this process over a real run database, with a scheduler that looks when it is asked."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab import Lab
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from barlow_lab.run_folder import attempt_folder, run_folder
from barlow_lab.specs import parse_spec
from service.database.tables import Attempt, Job, Metric, Watermark
from service.ledger import jobs, reservations
from service.ledger.states import JobState
from service.scheduling import tick
from service.settings import Settings
from worker.supervisor import Supervisor

QUICK = {
    "node_name": "host-1",
    "slots": 2,
    "poll_seconds": 60.0,
    "heartbeat_seconds": 0.3,
    "lease_seconds": 12.0,
    "stop_grace_seconds": 5.0,
    "retry_backoff_seconds": 0.1,
    "recorder_seconds": 0.2,
}


def small_pretraining(**changed: Any) -> dict[str, Any]:
    """A pretraining of a few seconds: 7 steps an epoch on 448 digits."""
    return {
        "kind": "pretrain",
        "data": {"name": "digits", "limit": 448},
        "views": {"preset": "small_images", "size": 16},
        "backbone": {"name": "tiny"},
        "projector": {"widths": [32, 32]},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3, "reference_batch_size": None},
        "epochs": 2,
        "batch_size": 64,
        "run": {"record": {"metrics_every_steps": 1}},
    } | changed


class Host(Lab):
    """A node at work, and short ways to give it jobs."""

    def __init__(self, settings: Settings, **changed: Any) -> None:
        super().__init__(settings.model_copy(update={**QUICK, **changed}))
        self.node = Supervisor(self.settings, self.engine)  # type: ignore[assignment]

    def post(self, spec: dict[str, Any], name: str | None = None, source: uuid.UUID | None = None) -> uuid.UUID:
        with self.sessions.begin() as session:
            experiment = jobs.ensure_experiment(session, "lab")
            job = jobs.submit(
                session,
                experiment_id=experiment.id,
                spec=parse_spec(spec),
                name=name,
                after=[],
                source_job_id=source,
                actor="test",
                user=None,
            )
            return job.id

    def preempt(self, job_id: uuid.UUID) -> uuid.UUID:
        """A job of higher priority, larger than this host, has a running one make room; returns it."""
        with self.sessions.begin() as session:
            larger = self.submit_in(session, slots=self.settings.slots or 1, priority=100, data="textures")

        def told() -> bool:
            with self.sessions.begin() as session:
                by = session.get_one(Job, larger)
                return reservations.request_preemption(session, self.attempt(job_id).id, by=by)

        deadline = time.monotonic() + 10
        while not told():  # the worker may just be at the job; the scheduler asks again at its next tick, too
            assert time.monotonic() < deadline, "the attempt cannot be told to make room"
            time.sleep(0.05)
        return larger

    def schedule(self) -> None:
        """One look of the scheduler, and the message to the node."""
        with self.sessions() as session:
            tick.tick(
                session,
                instance=uuid.UUID(int=1),
                lease_seconds=self.settings.lease_seconds,
                may_reap=True,
                complete=self.complete,
            )
        self.node.wake()

    def wait(self, condition: Callable[[], bool], seconds: float = 90.0) -> None:
        """Schedule until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            self.schedule()
            time.sleep(0.1)

    @contextmanager
    def held_back(self, job_id: uuid.UUID) -> Iterator[None]:
        """Nobody can record a running job's last lines meanwhile, so its worker cannot end the attempt."""
        with self.sessions.begin() as session:
            session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            assert session.scalars(select(Watermark).where(Watermark.job_id == job_id).with_for_update()).all()
            yield

    def finish(self, job_id: uuid.UUID) -> Job:
        """The job, once it has ended."""
        self.wait(lambda: JobState(self.job(job_id).state).terminal)
        return self.job(job_id)

    def wait_for_step(self, job_id: uuid.UUID, step: int) -> None:
        """Until the metrics of this step are in the database."""
        self.wait(lambda: any(at >= step for _, at in self.points(job_id)))

    def points(self, job_id: uuid.UUID) -> dict[tuple[str, int], float]:
        """Every point of the job: (key, step) → value."""
        with Session(self.engine) as session:
            rows = session.execute(select(Metric.key, Metric.step, Metric.value).where(Metric.job_id == job_id))
            return {(key, step): value for key, step, value in rows}

    def folder(self, job_id: uuid.UUID, number: int = 1) -> Any:
        return attempt_folder(run_folder(self.settings.runs_dir, job_id), number)

    def attempts_of(self, job_id: uuid.UUID) -> list[Attempt]:
        with Session(self.engine) as session:
            return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))


def at_work(host: Host) -> Iterator[Host]:
    """The host with its node at work; at the end it is drained, and what must always hold is checked."""
    host.node.register()
    host.node.start()
    yield host
    host.node.drain()
    host.check()
    host.engine.dispose()
