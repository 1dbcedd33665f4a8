"""A job with journals written by hand, for tests of the recorder: no trainer runs."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from lab import Lab
from PIL import Image
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from worker_host import small_pretraining

from barlow_lab.journal import Journal
from barlow_lab.run_folder import JOURNAL, attempt_folder, run_folder
from barlow_lab.specs import parse_spec
from service.database.tables import Attempt, Job, Metric, Watermark
from service.ledger import jobs
from service.ledger.states import AttemptOutcome
from service.settings import Settings

HEALTH = ["60 of 128 directions", "nearly decorrelated"]
RESULT = {"loss": 1.5, "health": HEALTH}


class RecordedJob:
    """A running job and the journals of its attempts."""

    def __init__(
        self,
        lab: Lab,
        settings: Settings,
        name: str = "recorded",
        source: uuid.UUID | None = None,
        labels: dict[str, str] | None = None,
        spec: dict[str, Any] | None = None,
        experiment: str | None = None,
    ) -> None:
        """`spec`: left out, a small pretraining with these labels. `experiment`: left out, that of the database."""
        self.lab = lab
        with lab.sessions.begin() as session:
            facts: dict[str, Any] = {"name": name, "after": [], "source_job_id": source, "actor": "test", "user": "ana"}
            home = jobs.ensure_experiment(session, experiment or f"lab-{lab.engine.url.database}")
            self.id = jobs.submit(
                session,
                experiment_id=home.id,
                spec=parse_spec(spec or small_pretraining(run={"labels": labels or {}})),
                **facts,
            ).id
            rows = [{"job_id": self.id, "target": target, "position": {}} for target in ("postgres", "mlflow")]
            session.execute(insert(Watermark).values(rows))
        self.run = run_folder(settings.runs_dir, self.id)
        self.attempt: Attempt = lab.start(self.id)
        self.journal = self._journal(1)

    def again(self) -> None:
        """The attempt crashes, the next one begins."""
        self.lab.end(self.attempt, AttemptOutcome.CRASHED)
        self.lab.skip_backoff(self.id)
        self.attempt = self.lab.start(self.id)
        self.journal = self._journal(self.attempt.number)

    def succeed(self) -> None:
        """The end, with a published backbone."""
        backbone = self.run / "backbone"
        backbone.mkdir()
        (backbone / "model.safetensors").write_bytes(b"weights")
        (backbone / "config.json").write_text("{}")
        self.lab.end(self.attempt, AttemptOutcome.OK, result=RESULT)

    def started(self, resume_step: int = 0) -> None:
        self.journal.append("started", step=resume_step, resume_step=resume_step, versions={"torch": "2"}, device="cpu")

    def steps(self, first: int, last: int, value: float = 0.0) -> None:
        """Two metrics at every step; the value names step and attempt."""
        for step in range(first, last + 1):
            self.journal.metrics(step, 1, {"loss": value + step, "on_diagonal": value - step})

    def checkpoint(self, step: int, deleted: list[str] | None = None) -> None:
        self.journal.append(
            "checkpoint",
            step=step,
            epoch=1,
            checkpoint="last",
            path=f"checkpoints/step-{step:08d}",
            sha256="0" * 64,
            bytes=1,
            deleted=deleted or [],
        )

    def correlation(self, step: int) -> None:
        folder = self.folder / "correlation"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (400, 300), (step % 256, 0, 0)).save(folder / f"step-{step:08d}.png")
        name = f"correlation/step-{step:08d}"
        facts = {"dim": 8, "n": 64, "floor": 0.1, "summary": {"effective_rank": 3.0}}
        self.journal.append("correlation", step=step, epoch=1, file=f"{name}.npz", image=f"{name}.png", **facts)

    def views(self) -> None:
        """The picture of the first batch, which an attempt shows before it is started."""
        Image.new("RGB", (64, 64)).save(self.folder / "views.png")
        self.journal.append("image", step=0, key="views", file="views.png")

    @property
    def folder(self) -> Path:
        return attempt_folder(self.run, self.attempt.number)

    def points(self) -> dict[tuple[str, int], tuple[float, int]]:
        """(key, step) → (value, attempt)."""
        with self.lab.sessions() as session:
            rows = session.scalars(select(Metric).where(Metric.job_id == self.id))
            return {(row.key, row.step): (row.value, row.attempt) for row in rows}

    def watermark(self, target: str) -> Watermark:
        with self.lab.sessions() as session:
            return session.get_one(Watermark, (self.id, target))

    def row(self) -> Job:
        return self.lab.job(self.id)

    def _journal(self, number: int) -> Journal:
        folder = attempt_folder(self.run, number)
        folder.mkdir(parents=True)
        return Journal(folder / JOURNAL)
