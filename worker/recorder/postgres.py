"""Journals → Postgres: a batch of lines and the watermark behind them in one transaction, so every line counts once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from service.database.tables import Attempt, Checkpoint, Correlation, Image, Job, Metric, Watermark
from service.ledger import events as job_events
from service.ledger.states import JobState
from service.recording import POSTGRES
from service.run_folders import attempt_folder, run_folder
from service.storable import storable
from trainer.journal import FILE_NAME, Event, read_events

BATCH = 2000

log = logging.getLogger(__name__)


class PostgresRecorder:
    """Records journals into the run database. Any number of them may run: the watermark's row lock takes turns."""

    def __init__(self, sessions: sessionmaker[Session], runs_dir: Path) -> None:
        self._sessions = sessions
        self._runs_dir = runs_dir

    def pending(self) -> list[UUID]:
        """Jobs with something left to record whose run directory is visible here."""
        with self._sessions() as session:
            jobs = session.scalars(select(Watermark.job_id).where(Watermark.target == POSTGRES, ~Watermark.complete))
            return [job for job in jobs if run_folder(self._runs_dir, job).exists()]

    def flush(self, job_id: UUID) -> None:
        """Record all that is journalled now; waits for another recorder that is at it."""
        while self.record(job_id, wait=True):
            pass

    def record(self, job_id: UUID, *, wait: bool = False) -> bool:
        """Record one batch of a job; returns whether there may be more."""
        with self._sessions.begin() as session:
            mark = session.scalar(
                select(Watermark)
                .where(Watermark.job_id == job_id, Watermark.target == POSTGRES)
                .with_for_update(skip_locked=not wait)
            )
            if mark is None or mark.complete:
                return False
            # Read before the journals: what is terminal now writes no further line.
            terminal = JobState(session.scalars(select(Job.state).where(Job.id == job_id)).one()).terminal
            run = run_folder(self._runs_dir, job_id)
            number, offset = mark.position.get("attempt", 1), mark.position.get("offset", 0)
            lines = _read(attempt_folder(run, number) / FILE_NAME, offset)
            if lines:
                _Batch(session, job_id, number, run).write(lines)
                mark.position = {"attempt": number, "offset": lines[-1].offset}
            elif (successor := _next_journal(run, number)) is not None:
                mark.position = {"attempt": successor, "offset": 0}
            else:
                mark.complete = terminal
                return False
            mark.updated_at = datetime.now(UTC)
            return True


def _read(journal: Path, offset: int) -> list[Event]:
    """The next whole lines. A damaged line ends the journal there: the good ones before it count."""
    lines: list[Event] = []
    try:
        for line in islice(read_events(journal, offset), BATCH):
            lines.append(replace(line, data=storable(line.data)))
    except ValueError as error:
        if not lines:
            log.error("the rest of a journal is unreadable and is left out: %s", error)
    return lines


def _next_journal(run: Path, number: int) -> int | None:
    later = (int(path.parent.name) for path in run.glob(f"attempts/[0-9]*/{FILE_NAME}"))
    return min((n for n in later if n > number), default=None)


class _Batch:
    """Rows of one batch of journal lines of one attempt."""

    def __init__(self, session: Session, job_id: UUID, number: int, run: Path) -> None:
        self._session = session
        self._job_id = job_id
        self._number = number
        self._run = run
        self._metrics: list[dict[str, Any]] = []

    def write(self, lines: Sequence[Event]) -> None:
        # Locked in the ledger's order, job before attempt, so that the two never wait for each other in a circle.
        job = self._session.get_one(Job, self._job_id, with_for_update={"key_share": True})
        for line in lines:
            row = {"job_id": self._job_id, "attempt": self._number, "step": line.step or 0, "at": _time(line)}
            match line.kind:
                case "started":
                    self._started(job, line)
                case "metrics":
                    self._metrics += [{**row, "key": key, "value": value} for key, value in line.data["values"].items()]
                case "progress":
                    job.progress = {**line.data, "step": line.step, "epoch": line.epoch, "at": line.at}
                case "correlation":
                    self._upsert(Correlation, row, epoch=line.epoch, **self._correlation(line.data))
                case "image":
                    self._upsert(Image, {**row, "key": line.data["key"]}, file=self._relative(line.data["file"]))
                case "checkpoint" if line.data["checkpoint"] != "backbone":  # that one counts when it is published
                    self._checkpoint(line)
                case "warning":
                    actor = f"attempt {self._number}"
                    job_events.append(self._session, job, "warning", actor=actor, payload=line.data)
        self._write_metrics()
        self._session.flush()
        last_step = max((line.step for line in lines if line.step is not None), default=None)
        values: dict[str, Any] = {"last_progress_at": _time(lines[-1])}
        self._session.execute(
            update(Attempt)
            .where(Attempt.job_id == self._job_id, Attempt.number == self._number)
            .values(values if last_step is None else {**values, "last_step": last_step})
        )

    def _started(self, job: Job, line: Event) -> None:
        """From here on this attempt counts: what earlier ones recorded beyond the step it resumes from is undone."""
        self._write_metrics()
        step = line.data["resume_step"]
        for table in (Metric, Correlation, Image, Checkpoint):
            beyond = (table.job_id == self._job_id, table.attempt < self._number, table.step > step)
            self._session.execute(delete(table).where(*beyond))
        if step:
            payload = {"attempt": self._number, "step": step}
            job_events.append(self._session, job, "attempt_resumed", actor=f"attempt {self._number}", payload=payload)

    def _write_metrics(self) -> None:
        if self._metrics:
            new = insert(Metric)
            statement = new.on_conflict_do_update(
                index_elements=["job_id", "key", "step"],
                set_={name: new.excluded[name] for name in ("value", "at", "attempt")},
                where=new.excluded.attempt >= Metric.attempt,
            )
            self._session.execute(statement, self._metrics)
            self._metrics = []

    def _upsert(self, table: type[Correlation] | type[Image], key: dict[str, Any], **values: Any) -> None:
        names = [column.name for column in table.__table__.primary_key]
        row = {**key, **values}
        self._session.execute(
            insert(table)
            .values(row)
            .on_conflict_do_update(
                index_elements=names, set_={name: value for name, value in row.items() if name not in names}
            )
        )

    def _correlation(self, data: dict[str, Any]) -> dict[str, Any]:
        return {
            "dim": data["dim"],
            "summary": {**data["summary"], "n": data["n"], "floor": data["floor"]},
            "file": self._relative(data["file"]),
            "image": self._relative(data["image"]),
        }

    def _checkpoint(self, line: Event) -> None:
        row = {
            "job_id": self._job_id,
            "attempt": self._number,
            "step": line.step,
            "epoch": line.epoch,
            "kind": line.data["checkpoint"],
            "uri": self._relative(line.data["path"]),
            "sha256": line.data["sha256"],
            "bytes": line.data["bytes"],
            "score": line.data.get("score"),
            "created_at": _time(line),
        }
        self._session.execute(insert(Checkpoint).values(row).on_conflict_do_nothing())
        deleted = [self._relative(path) for path in line.data["deleted"]]
        self._session.execute(
            update(Checkpoint)
            .where(Checkpoint.job_id == self._job_id, Checkpoint.uri.in_(deleted))
            .values(deleted_at=_time(line))
        )

    def _relative(self, path: str) -> str:
        """A path in the attempt's folder, as seen from the run directory."""
        return str((attempt_folder(self._run, self._number) / path).relative_to(self._run))


def _time(line: Event) -> datetime:
    return datetime.fromtimestamp(line.at, UTC)
