"""A recorded job whose checkpoints lie on the disk, for tests of retention."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from journals import RecordedJob
from lab import Lab
from sqlalchemy import delete, select, update

from barlow_lab.run_folder import attempt_folder
from barlow_lab.specs import parse_spec
from service.database.tables import Checkpoint, Job
from service.ledger import jobs
from worker.recorder.postgres import PostgresRecorder


class RecordedRun:
    """A recorded job whose checkpoints lie on the disk."""

    def __init__(self, lab: Lab, name: str = "recorded", **policy: Any) -> None:
        self.lab = lab
        self.job = RecordedJob(lab, lab.settings, name=name)
        self.id = self.job.id
        spec = {**self.job.row().spec}
        spec["run"] = {**spec["run"], "checkpoint": {**spec["run"]["checkpoint"], **policy}}
        with lab.sessions.begin() as session:
            session.execute(update(Job).where(Job.id == self.id).values(spec=spec))
        self.recorder = PostgresRecorder(lab.sessions, self.job.run.parent)
        self.job.started()

    def place(self, step: int, attempt: int | None = None) -> Path:
        return attempt_folder(self.job.run, attempt or self.job.attempt.number) / f"checkpoints/step-{step:08d}"

    def write(self, *steps: int, milestone: bool = False, score: float | None = None, size: int = 5) -> None:
        """As the trainer does: the folder, then the line."""
        for step in steps:
            self.folder(step, size)
            self.job.journal.append(
                "checkpoint", step=step, epoch=1, checkpoint="milestone" if milestone else "last", score=score,
                path=f"checkpoints/step-{step:08d}", sha256="0" * 64, bytes=1, deleted=[],
            )  # fmt: skip

    def folder(self, step: int, size: int = 5) -> None:
        self.place(step).mkdir(parents=True)
        (self.place(step) / "state.pt").write_bytes(b"s" * size)

    def record(self) -> None:
        self.recorder.flush(self.id)

    def again(self, resume_step: int) -> None:
        self.job.again()
        self.job.started(resume_step)

    def rows(self) -> dict[tuple[int, int], str]:
        """(attempt, step) → kind of what is not deleted."""
        with self.lab.sessions() as session:
            kept = Checkpoint.deleted_at.is_(None), Checkpoint.kind != "backbone"
            rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == self.id, *kept))
            return {(row.attempt, row.step): row.kind for row in rows}

    def there(self) -> list[str]:
        """Everything in the attempts' folders of checkpoints."""
        return sorted(f"{at.parent.parent.name}/{at.name}" for at in self.job.run.glob("attempts/*/checkpoints/*"))

    def steps_on_disk(self) -> list[int]:
        return [int(name.rpartition("-")[2]) for name in self.there()]

    def publish(self) -> None:
        """The row of the backbone that the succeeded job left."""
        row = {"attempt": 1, "step": 99, "kind": "backbone", "uri": "backbone", "sha256": "0" * 64, "bytes": 1}
        with self.lab.sessions.begin() as session:
            session.add(Checkpoint(job_id=self.id, created_at=datetime.now(UTC), **row))

    def unpublish(self) -> None:
        with self.lab.sessions.begin() as session:
            session.execute(delete(Checkpoint).where(Checkpoint.job_id == self.id, Checkpoint.kind == "backbone"))


def judge(lab: Lab, source: UUID, select: str, kind: str = "knn") -> UUID:
    """A job of `kind` that takes a checkpoint (`step N`) or the backbone (`last`) of another."""
    spec = {"kind": kind, "data": {"name": "digits"}, "backbone_from": {"job": "recorded", "select": select}}
    with lab.sessions.begin() as session:
        experiment = jobs.ensure_experiment(session, "lab")
        facts: dict[str, Any] = {"name": None, "after": [], "source_job_id": source, "actor": "test", "user": None}
        return jobs.submit(session, experiment_id=experiment.id, spec=parse_spec(spec), **facts).id
