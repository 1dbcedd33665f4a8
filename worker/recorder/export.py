"""One pass over one job: its rows and files into its MLflow run, written so that doing any part again changes nothing.

While a job runs, only what its newest checkpoint covers is sent: a resume would draw the rest a second time. Points
carry the journal's time, so MLflow drops a point that is sent twice.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, literal, select, tuple_
from sqlalchemy.orm import Session

from service.database.tables import Attempt, Correlation, Image, Job, Metric
from service.evaluations import backbone_of, data_of, protocol_of
from service.ledger import warnings
from service.ledger.states import JobState
from service.recording import mlflow_params
from service.run_folders import attempt_folder
from service.storable import storable
from trainer.journal import FILE_NAME, read_events
from trainer.specs.given_files import checked
from worker.recorder.mlflow_run import POINTS, MlflowRun, Point
from worker.recorder.position import Position

STATUS = {JobState.SUCCEEDED: "FINISHED", JobState.FAILED: "FAILED", JobState.CANCELLED: "KILLED"}
MACHINE_FACTS = ("host", "device", "world_size", "threads", "jpeg_decoder")
LAST_STEP = 2**62
WARNINGS = 10
"""The newest ones, in a tag."""
FILES = "files"
"""In a position: all but the files of the ended job is in MLflow."""
TURN_SECONDS = 5.0
"""So long one job may keep the others waiting, if MLflow answers."""


class Export:
    """What a job has, against what MLflow is known to have of it."""

    def __init__(self, session: Session, job: Job, position: Position, run: MlflowRun, folder: Path) -> None:
        self._session = session
        self._job = job
        self._position = position
        self._run = run
        self._folder = folder
        self._turn_ends = time.monotonic() + TURN_SECONDS

    def facts(self) -> None:
        """Params once; tags whenever they changed."""
        if "tags" not in self._position.value:
            self._run.params(mlflow_params(self._job.spec))
        tags = self._tags()
        old = self._position.value.get("tags", {})
        if changed := {key: value for key, value in tags.items() if old.get(key) != value}:
            self._run.tags(changed)
            self._position.keep(tags=tags)

    def points(self, last_step: int) -> bool:
        """Points in the order of (step, key), up to `last_step`; False: the turn is over, some are left."""
        while chunk := self._points_after(self._position.value.get("point", [-1, ""]), last_step):
            if self._turn_is_over():
                return False
            self._run.points(chunk)
            key, step, *_ = chunk[-1]
            self._position.keep(point=[step, key], points=self._position.value.get("points", 0) + len(chunk))
        return True

    def images(self, last_step: int) -> bool:
        """Heatmaps and other pictures up to `last_step`; False: the turn is over, some are left."""
        rows: list[tuple[str, int, datetime, str]] = []
        for statement in (
            select(literal("correlation"), Correlation.step, Correlation.at, Correlation.image).where(
                Correlation.job_id == self._job.id, Correlation.step <= last_step
            ),
            select(Image.key, Image.step, Image.at, Image.file).where(
                Image.job_id == self._job.id, Image.step <= last_step
            ),
        ):
            rows += [(key, step, at, file) for key, step, at, file in self._session.execute(statement)]
        if len(rows) == self._position.value.get("images", 0):
            return True
        for _ in self._run.images((key, step, at, self._folder / file) for key, step, at, file in sorted(rows)):
            if self._turn_is_over():
                return False
        self._position.keep(images=len(rows))
        return True

    def end(self) -> bool:
        """What an ended job leaves: every point, the result, the status; False: the turn is over, some is left.

        The job is complete then, unless there are files to be sent.
        """
        everything = self._session.scalar(select(func.count()).select_from(Metric).where(Metric.job_id == self._job.id))
        if everything != self._position.value.get("points", 0):
            # A line may stand behind the checkpoint that covers its step; sent again, the others stay single.
            self._position.keep(point=[-1, ""], points=0)
            if not self.points(LAST_STEP):
                return False
        if self._job.result is not None:
            self._run.text(json.dumps(self._job.result, indent=2), "result.json")
        assert self._job.finished_at is not None, "an ended job has its end"
        self._run.finish(STATUS[JobState(self._job.state)], self._job.finished_at)
        self._run.delete_others()
        if any(self._files()):
            self._position.keep(**{FILES: True})
        else:
            self._position.complete()
        return True

    def files(self) -> None:
        """The backbone; the job is complete then."""
        for file in self._files():
            self._run.artifact(file, "backbone")
        self._position.complete(FILES)

    def _files(self) -> Iterator[Path]:
        backbone = self._folder / "backbone"
        if self._job.state == JobState.SUCCEEDED and backbone.is_dir():
            for file in sorted(backbone.iterdir()):
                with contextlib.suppress(OSError):  # what is no file of this run is not sent to another server
                    yield checked(file, within=self._folder)

    def _turn_is_over(self) -> bool:
        return time.monotonic() > self._turn_ends

    def _points_after(self, point: list[Any], last_step: int) -> list[Point]:
        statement = (
            select(Metric.key, Metric.step, Metric.value, Metric.at)
            .where(
                Metric.job_id == self._job.id,
                Metric.step <= last_step,
                tuple_(Metric.step, Metric.key) > tuple_(literal(point[0]), literal(point[1])),
            )
            .order_by(Metric.step, Metric.key)
            .limit(POINTS)
        )
        return [(key, step, value, at) for key, step, value, at in self._session.execute(statement)]

    def _tags(self) -> dict[str, str]:
        """Facts of the job and of its newest attempt."""
        job = self._job
        tags = {"barlow.kind": job.kind, "barlow.spec_digest": job.spec_digest, "barlow.state": job.state}
        tags |= {f"label.{key}": str(value) for key, value in job.labels.items()}
        if job.user_name is not None:
            tags["mlflow.user"] = job.user_name  # MLflow shows it beside the run
        attempts = self._session.scalars(
            select(Attempt).where(Attempt.job_id == job.id, Attempt.started_at.is_not(None)).order_by(Attempt.number)
        ).all()
        if attempts:
            tags |= {"barlow.attempts": str(len(attempts)), "barlow.node": attempts[-1].node}
            facts = _machine_facts(attempt_folder(self._folder, attempts[-1].number) / FILE_NAME)
            tags |= {f"barlow.{key}": str(storable(value)) for key, value in facts.items() if value is not None}
        if said := [one.message for one in warnings.of_job(self._session, job.id)]:
            more = f"\nand {len(said) - WARNINGS:,} others" if len(said) > WARNINGS else ""
            tags["barlow.warnings"] = "\n".join(said[:WARNINGS]) + more
        if job.error is not None:
            tags["barlow.error"] = str(job.error.get("message", ""))
        source = None if job.source_job_id is None else self._session.get_one(Job, job.source_job_id)
        if source is not None:
            tags |= {"mlflow.parentRunId": source.mlflow_run_id} if source.mlflow_run_id else {}
        return tags | _evaluation_tags(job, None if source is None else source.name)


def _evaluation_tags(job: Job, source: str | None) -> dict[str, str]:
    """What an evaluation measures of whose backbone, to group and filter runs by, and its headline once it is there."""
    # A result of before stays under the version of the protocol that it was told under.
    protocol = (job.result or {}).get("protocol") or protocol_of(job.spec)
    if protocol is None:
        return {}
    tags = {
        "barlow.protocol": protocol,
        "barlow.data": data_of(job.spec),
        "barlow.backbone": backbone_of(job.spec, source),
    }
    if source is not None:
        tags["barlow.source_job"] = source
    if job.spec["run"].get("published"):
        tags["barlow.published_in"] = job.spec["run"]["published"]["source"]
    result = job.result or {}
    if headline := result.get("headline"):
        score = result["scores"][headline]
        tags["barlow.headline"] = f"{headline} {score['last']:.2f} (best {score['best']:.2f})"
    return tags


def _machine_facts(journal: Path) -> dict[str, Any]:
    """What an attempt's `started` event says of its machine; nothing if it is not there, or not to be read."""
    # Loading the data comes before it, with an event or two of progress.
    with contextlib.suppress(ValueError):  # a damaged line, of which the other recorder complains
        for line in read_events(journal, limit=20):
            if line.kind == "started":
                return {**line.data.get("versions", {}), **{key: line.data.get(key) for key in MACHINE_FACTS}}
    return {}
