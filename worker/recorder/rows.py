"""Journal lines of one attempt → rows of the run database."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, delete, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from barlow_lab.journal import JournalEvent
from barlow_lab.run_folder import JOURNAL, attempt_folder
from service.database.tables import Attempt, Checkpoint, Correlation, Image, Job, Metric
from service.ledger import events as job_events
from service.recording import rebuild
from service.storable import storable

# What PostgreSQL 18 says of the row that an upsert replaced; null where there was none.
_REPLACED = literal_column("old.step", BigInteger)

log = logging.getLogger(__name__)


class RowWriter:
    """What the journal lines of one attempt become."""

    def __init__(self, session: Session, job_id: UUID, number: int, run: Path) -> None:
        self.session = session
        self._job_id = job_id
        self._number = number
        self._run = run
        self._metrics: dict[tuple[str, int], dict[str, Any]] = {}
        self._outdated: str | None = None

    def write(self, lines: Sequence[JournalEvent]) -> None:
        """Record lines in their order.

        Raises:
            Exception: a line is not what its kind says; part of them may be written.
        """
        self._metrics, self._outdated = {}, None
        job = self._locked_job()
        for line in lines:
            row = {"job_id": self._job_id, "attempt": self._number, "step": line.step or 0, "at": _time(line)}
            match line.kind:
                case "started":
                    self._started(job, line)
                case "metrics":
                    for key, value in line.data["values"].items():
                        self._metrics[key, line.step or 0] = {**row, "key": key, "value": value}
                case "progress":
                    job.progress = {**line.data, "step": line.step, "epoch": line.epoch, "at": line.at}
                case "correlation":
                    self._correlation({**row, "epoch": line.epoch, **self._correlation_facts(line.data)})
                case "image":
                    self._image({**row, "key": line.data["key"], "file": self._relative(line.data["file"])})
                case "checkpoint" if line.data["checkpoint"] != "backbone":  # that one counts when it is published
                    self._checkpoint(line)
                case "warning":
                    job_events.append(self.session, job, "warning", actor=self._actor, payload=line.data)
        self._write_metrics()
        self.session.flush()
        if self._outdated is not None:
            rebuild(self.session, job, actor=self._actor, why=self._outdated)
        last_step = max((line.step for line in lines if line.step is not None), default=None)
        values: dict[str, Any] = {"last_progress_at": _time(lines[-1])}
        if last_step is not None:  # a checkpoint's line comes when it is written, a few steps later
            values["last_step"] = func.greatest(Attempt.last_step, last_step)
        self.session.execute(
            update(Attempt).where(Attempt.job_id == self._job_id, Attempt.number == self._number).values(values)
        )

    def left_out(self, byte: int, why: str) -> None:
        """Report a line that begins at this byte and is not recorded."""
        file = f"attempts/{self._number:04d}/{JOURNAL}"
        log.error("job %s: a line of %s at byte %d is left out: %s", self._job_id, file, byte, why)
        message = f"a damaged line of {file}, at byte {byte}, was left out: {why}"[:1000]
        payload = {"message": storable(message), "file": file, "byte": byte}
        job_events.append(self.session, self._locked_job(), "warning", actor=self._actor, payload=payload)

    @property
    def _actor(self) -> str:
        return f"attempt {self._number}"

    def _locked_job(self) -> Job:
        # Locked in the ledger's order, job before attempt, so that the two never wait for each other in a circle.
        return self.session.get_one(Job, self._job_id, with_for_update={"key_share": True})

    def _started(self, job: Job, line: JournalEvent) -> None:
        """From here on this attempt counts: what earlier ones recorded beyond the step it resumes from is undone."""
        self._write_metrics()
        step = line.data["resume_step"]
        if self._durable_step() > step:
            self._outdated = f"attempt {self._number} goes on from step {step}, before the newest checkpoint"
        for table in (Metric, Correlation, Image, Checkpoint):
            beyond = (table.job_id == self._job_id, table.attempt < self._number, table.step > step)
            self.session.execute(delete(table).where(*beyond))
        if step:
            payload = {"attempt": self._number, "step": step}
            job_events.append(self.session, job, "attempt_resumed", actor=self._actor, payload=payload)

    def _write_metrics(self) -> None:
        if self._metrics:
            new = insert(Metric)
            statement = new.on_conflict_do_update(
                index_elements=["job_id", "key", "step"],
                set_={name: new.excluded[name] for name in ("value", "at", "attempt")},
                where=new.excluded.attempt >= Metric.attempt,
            )
            replaced = self.session.scalars(statement.returning(_REPLACED), list(self._metrics.values()))
            self._replaced(replaced)
            self._metrics = {}

    def _replaced(self, steps: Iterable[int | None]) -> None:
        """MLflow cannot replace: what was replaced at or before the newest checkpoint may stand there."""
        replaced = [step for step in steps if step is not None]
        if replaced and min(replaced) <= self._durable_step():
            self._outdated = f"attempt {self._number} recorded step {min(replaced)} again"

    def _durable_step(self) -> int:
        newest = select(func.max(Checkpoint.step)).where(
            Checkpoint.job_id == self._job_id, Checkpoint.kind != "backbone"
        )
        step = self.session.scalar(newest)
        return -1 if step is None else step

    def _image(self, row: dict[str, Any]) -> None:
        # Every attempt shows first what the run began with: it is the same picture, and no reason to rebuild a run.
        self.session.execute(insert(Image).values(row).on_conflict_do_nothing())

    def _correlation(self, row: dict[str, Any]) -> None:
        names = ["job_id", "step"]
        statement = (
            insert(Correlation)
            .values(row)
            .on_conflict_do_update(
                index_elements=names, set_={name: value for name, value in row.items() if name not in names}
            )
        )
        self._replaced(self.session.scalars(statement.returning(_REPLACED)))

    def _correlation_facts(self, data: dict[str, Any]) -> dict[str, Any]:
        return {
            "dim": data["dim"],
            "summary": {**data["summary"], "n": data["n"], "floor": data["floor"]},
            "file": self._relative(data["file"]),
            "image": self._relative(data["image"]),
        }

    def _checkpoint(self, line: JournalEvent) -> None:
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
        self.session.execute(insert(Checkpoint).values(row).on_conflict_do_nothing())
        deleted = [self._relative(path) for path in line.data["deleted"]]
        self.session.execute(
            update(Checkpoint)
            .where(Checkpoint.job_id == self._job_id, Checkpoint.uri.in_(deleted))
            .values(deleted_at=_time(line))
        )

    def _relative(self, path: str) -> str:
        """A path in the attempt's folder or in one of another attempt, as seen from the run directory.

        Raises:
            ValueError: it leads out of that.
        """
        return str(Path(os.path.normpath(attempt_folder(self._run, self._number) / path)).relative_to(self._run))


def _time(line: JournalEvent) -> datetime:
    return datetime.fromtimestamp(line.at, UTC)
