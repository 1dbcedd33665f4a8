"""Short ways to give jobs to a stack and to look at them, whatever of it is away just now."""

from __future__ import annotations

import contextlib
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from running_stack import wait_until
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from barlow_lab.journal import JournalEvent, read_events
from barlow_lab.run_folder import JOURNAL, attempt_folder
from service import outgoing_http
from service.client.api import Client
from service.client.connection import ApiError, Unreachable
from service.database.tables import Attempt, Event, Job, Watermark
from service.ledger.states import JobState

PATIENCE = 120.0
"""Seconds that anything may take at most on two busy cores; nothing is expected to."""

T = TypeVar("T")


class StackView(ABC):
    """A stack that answers at `endpoints` ("api", "mlflow", "database"), with `engine` on its database.

    `token` is for its API, None where that asks for none; `mlflow_token` the recorder's for its MLflow.
    """

    endpoints: dict[str, str]
    engine: Engine
    token: str | None = None
    mlflow_token: str

    @abstractmethod
    def run(self, job_id: uuid.UUID) -> Path:
        """The job's run directory."""

    @abstractmethod
    def marked(self, attempt_id: uuid.UUID) -> list[int]:
        """Process ids of the attempt that are still there."""

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
                with Client(self.endpoints["api"], self.token) as client:
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
                with Session(self.engine, expire_on_commit=False) as session:
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

    def wait(self, true: Callable[[], bool], what: str, seconds: float = PATIENCE, every: float = 0.1) -> None:
        """Wait for a condition; names it if it never comes."""
        try:
            wait_until(true, seconds, every)
        except AssertionError:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}") from None

    def wait_for(self, job_id: uuid.UUID, *states: str, seconds: float = PATIENCE) -> Job:
        """The job once it is in one of these states; `seconds` from the last sign of life of any job on, since one that
        gets on slowly may hold the slots that another waits for."""
        alive, since = self._signs(), time.monotonic()
        while (job := self.job(job_id)).state not in states:
            if (now := self._signs()) != alive:
                alive, since = now, time.monotonic()
            assert time.monotonic() - since < seconds, (
                f"for {seconds:g} s nothing is recorded of any job, and job {job_id} is {job.state}, not "
                f"{' or '.join(states)} ({job.reason_code}); its attempts: "
                f"{[(one.node, one.outcome) for one in self.attempts(job_id)]}"
            )
            time.sleep(0.1)
        return job

    def _signs(self) -> tuple[object, object]:
        """When a line of a journal was last recorded, and how many events there are."""
        return self.read(
            lambda session: (
                session.scalar(select(func.max(Watermark.updated_at))),
                session.scalar(select(func.count()).select_from(Event)),
            )
        )

    def wait_for_end(self, job_id: uuid.UUID, seconds: float = PATIENCE) -> Job:
        return self.wait_for(job_id, *(state for state in JobState if state.terminal), seconds=seconds)

    def folder(self, job_id: uuid.UUID, attempt: int) -> Path:
        return attempt_folder(self.run(job_id), attempt)

    def lines(self, job_id: uuid.UUID, attempt: int) -> list[JournalEvent]:
        """The journal of an attempt."""
        return list(read_events(self.folder(job_id, attempt) / JOURNAL))

    def wait_for_line(
        self, job_id: uuid.UUID, kind: str, *, step: int = 0, attempt: int = 1, phase: str | None = None
    ) -> JournalEvent:
        """The first line of this kind (of `step` or later, of `phase`) in an attempt's journal, as soon as it stands.

        It looks closely: what is done next is to hit a moment.
        """
        deadline = time.monotonic() + PATIENCE
        journal, offset = self.folder(job_id, attempt) / JOURNAL, 0
        while time.monotonic() < deadline:
            job = self.job(job_id)  # before its lines: of a job that has ended there are no more to come
            for line in read_events(journal, offset):
                offset = line.offset
                if line.kind == kind and (line.step or 0) >= step and phase in (None, line.data.get("phase")):
                    return line
            assert not JobState(job.state).terminal, f"{job.state} before {kind} of step {step}: {job.error}"
            time.sleep(0.02)
        raise AssertionError(f"attempt {attempt} of job {job_id} never journalled {kind} of step {step} {phase or ''}")

    def wait_for_step(self, job_id: uuid.UUID, step: int, attempt: int = 1) -> None:
        self.wait_for_line(job_id, "metrics", step=step, attempt=attempt)

    def ready(self) -> bool:
        """Whether the API says that everything it needs is there."""
        with contextlib.suppress(httpx.HTTPError), outgoing_http.client(self.endpoints["api"], timeout=5) as client:
            return client.get("/readyz").status_code == 200
        return False

    def unfinished(self) -> Sequence[uuid.UUID]:
        """Jobs that have not ended."""
        query = select(Job.id).where(Job.state.not_in([state for state in JobState if state.terminal]))
        return self.read(lambda session: session.scalars(query).all())
