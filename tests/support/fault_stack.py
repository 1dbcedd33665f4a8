"""The stack of the fault suite: a `barlow up` with two slots and short times, its jobs, and ways to look at them."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from running_stack import Up, wait_until
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.client.api import ApiError, Client, Unreachable
from service.database.engine import make_engine
from service.database.tables import Attempt, Event, Job
from service.ledger.states import JobState
from service.run_folders import attempt_folder, run_folder
from service.settings import Settings
from trainer.journal import FILE_NAME, read_events
from trainer.journal import Event as Line
from worker.process import MARK

LEASE = 9.0
TIMES = {
    "TICK": 0.5,
    "POLL": 3.0,
    "HEARTBEAT": 0.5,
    "LEASE": LEASE,
    "STOP_GRACE": 3.0,
    "RETRY_BACKOFF": 0.2,
    "RECORDER": 0.3,
}
PATIENCE = 120.0
"""Seconds that anything may take at most on two busy cores; nothing is expected to."""

T = TypeVar("T")


def settings(**seconds: float) -> dict[str, str]:
    """The environment of a stack with short times; some may be other ones."""
    return {f"BARLOW_{name}_SECONDS": str(value) for name, value in {**TIMES, **seconds}.items()}


def pretrain(slots: int = 1, *, epochs: int = 12, **run: Any) -> dict[str, Any]:
    """A pretraining of 8 steps an epoch, about 40 an idle second, every step recorded, a checkpoint every 4."""
    return {
        "kind": "pretrain",
        "data": {"name": "digits", "limit": 256},
        "views": {"preset": "small_images", "size": 32},
        "backbone": {"name": "tiny"},
        "projector": {"widths": [16, 16]},
        "optimizer": {"name": "adamw", "learning_rate": 0.003, "reference_batch_size": None},
        "epochs": epochs,
        "batch_size": 32,
        "resources": {"slots": slots},
        "run": {
            "record": {"metrics_every_steps": 1, "correlation_every_epochs": 6},
            "checkpoint": {"every_steps": 4},
            **run,
        },
    }


def middling_pretrain(**run: Any) -> dict[str, Any]:
    """The same on both slots, for about a lease."""
    return pretrain(2, epochs=24, **run)


def long_pretrain(slots: int = 1, **run: Any) -> dict[str, Any]:
    """The same for longer than a lease. A step of two ranks takes twice the time of one rank's."""
    return pretrain(slots, epochs=60 if slots == 1 else 36, **run)


def knn(source: uuid.UUID | str | None = None, **run: Any) -> dict[str, Any]:
    """A kNN evaluation of a job's backbone; without one, of the raw pixels."""
    return {
        "kind": "knn",
        "data": {"name": "digits", "limit": 400},
        "images": {"size": 32, "resize": 32},
        "backbone_from": {"pixels": True} if source is None else {"job": str(source)},
        "run": run,
    }


@dataclass
class FaultStack(Up):
    """A running stack and short ways to give it jobs and to look at them, whatever of it is away."""

    settings: Mapping[str, str] = field(default_factory=settings)
    arguments: tuple[str, ...] = ("--slots", "2")

    def start(self) -> None:
        super().start()
        self._engine = make_engine(Settings(database_url=self.endpoints["database"]))

    @property
    def engine(self) -> Engine:
        return self._engine

    def submit(self, spec: dict[str, Any], name: str, key: str | None = None) -> uuid.UUID:
        """Submit a job as the only one of its experiment; asks again, by one key, until the API answers."""
        made = key or str(uuid.uuid4())
        experiment = f"{name}-{made[:8]}"
        return self.ask(lambda client: client.submit_job({**spec, "name": name}, experiment=experiment, key=made)).id

    def ask(self, question: Callable[[Client], T]) -> T:
        """The API's answer, asked for until it and its database are there.

        Raises:
            ApiError: it said no.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with Client(self.endpoints["api"]) as client:
                    return question(client)
            except ApiError as error:
                away = isinstance(error, Unreachable) or (error.problem is not None and error.problem.status == 503)
                if not away or time.monotonic() > deadline:
                    raise

    def read(self, query: Callable[[Session], T]) -> T:
        """What the database says, asked until it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with Session(self._engine, expire_on_commit=False) as session:
                    return query(session)
            except OperationalError:
                assert time.monotonic() < deadline, "the database does not come back"
                time.sleep(0.2)

    def job(self, job_id: uuid.UUID) -> Job:
        return self.read(lambda session: session.get_one(Job, job_id))

    def attempts(self, job_id: uuid.UUID) -> Sequence[Attempt]:
        """Oldest first."""
        query = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)
        return self.read(lambda session: session.scalars(query).all())

    def outcomes(self, job_id: uuid.UUID) -> list[str | None]:
        return [attempt.outcome for attempt in self.attempts(job_id)]

    def history(self, job_id: uuid.UUID) -> Sequence[Event]:
        """The events of a job."""
        query = select(Event).where(Event.job_id == job_id).order_by(Event.seq)
        return self.read(lambda session: session.scalars(query).all())

    def wait(self, true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait for a condition; names it if it never comes."""
        try:
            wait_until(true, seconds)
        except AssertionError:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}") from None

    def wait_for(self, job_id: uuid.UUID, *states: str, seconds: float = PATIENCE) -> Job:
        """The job once it is in one of these states."""
        self.wait(lambda: self.job(job_id).state in states, f"job {job_id} is {' or '.join(states)}", seconds)
        return self.job(job_id)

    def wait_for_end(self, job_id: uuid.UUID, seconds: float = PATIENCE) -> Job:
        return self.wait_for(job_id, *(state for state in JobState if state.terminal), seconds=seconds)

    def run(self, job_id: uuid.UUID) -> Path:
        """The job's run directory."""
        return run_folder(self.directory / "runs", job_id)

    def folder(self, job_id: uuid.UUID, attempt: int) -> Path:
        return attempt_folder(self.run(job_id), attempt)

    def lines(self, job_id: uuid.UUID, attempt: int) -> list[Line]:
        """The journal of an attempt."""
        return list(read_events(self.folder(job_id, attempt) / FILE_NAME))

    def wait_for_line(
        self, job_id: uuid.UUID, kind: str, *, step: int = 0, attempt: int = 1, phase: str | None = None
    ) -> Line:
        """The first line of this kind (of `step` or later, of `phase`) in an attempt's journal, as soon as it stands.

        It looks closely: what is done next is to hit a moment.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            job = self.job(job_id)  # before its lines: of a job that has ended there are no more to come
            for line in self.lines(job_id, attempt):
                if line.kind == kind and (line.step or 0) >= step and phase in (None, line.data.get("phase")):
                    return line
            assert not JobState(job.state).terminal, f"{job.state} before {kind} of step {step}: {job.error}"
            time.sleep(0.02)
        raise AssertionError(f"attempt {attempt} of job {job_id} never journalled {kind} of step {step} {phase or ''}")

    def wait_for_step(self, job_id: uuid.UUID, step: int, attempt: int = 1) -> None:
        self.wait_for_line(job_id, "metrics", step=step, attempt=attempt)

    def ranks(self, job_id: uuid.UUID) -> list[psutil.Process]:
        """The running ranks of a job, in their order."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                environment, command = process.environ(), process.cmdline()
                if MARK in environment and str(job_id) in command[3]:
                    found[int(environment["RANK"])] = process
        return [found[rank] for rank in sorted(found)]

    def ready(self) -> bool:
        """Whether the API says that everything it needs is there."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.endpoints['api']}/readyz", timeout=5).status_code == 200
        return False

    def unfinished(self) -> Sequence[uuid.UUID]:
        """Jobs that have not ended."""
        query = select(Job.id).where(Job.state.not_in([state for state in JobState if state.terminal]))
        return self.read(lambda session: session.scalars(query).all())
