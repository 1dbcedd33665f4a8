"""One pass over one job: its rows and files into its MLflow run, written so that doing any part again changes nothing.

While a job runs, only what its newest checkpoint covers is sent: a resume would draw the rest a second time. Points
carry the journal's time, so MLflow drops a point that is sent twice.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import func, literal, select, tuple_
from sqlalchemy.orm import Session

from barlow_lab.given_files import checked
from service.database.pictures import pictures_of
from service.database.tables import Job, Metric
from service.ledger.states import JobState
from service.mlflow_layout import VIEWS, description, metric_name, params, picture_name
from worker.recorder.description import describe
from worker.recorder.facts import Facts
from worker.recorder.mlflow_run import POINTS, MlflowRun, Point
from worker.recorder.position import FILES, JobPosition

STATUS = {JobState.SUCCEEDED: "FINISHED", JobState.FAILED: "FAILED", JobState.CANCELLED: "KILLED"}
LAST_STEP = 2**62
TURN_SECONDS = 5.0
"""So long one job may keep the others waiting, if MLflow answers."""


class Export:
    """What a job has, against what MLflow is known to have of it."""

    def __init__(self, session: Session, job: Job, position: JobPosition, run: MlflowRun, folder: Path) -> None:
        self._session = session
        self._job = job
        self._position = position
        self._run = run
        self._folder = folder
        self._facts = Facts(session, job, folder)
        self._turn_ends = time.monotonic() + TURN_SECONDS

    def facts(self) -> None:
        """Params and the spec once; the data set once it is known; tags and the description whenever they changed."""
        if "tags" not in self._position.value:
            if not self._run.former:
                self._run.params(params(self._job.spec, self._facts.source))
            self._run.text(yaml.safe_dump(self._job.spec, allow_unicode=True), "spec.yaml")
        tags = self._facts.tags()
        old = self._position.value.get("tags", {})
        if changed := {key: value for key, value in tags.items() if old.get(key) != value}:
            self._run.tags(changed)
            self._position.keep(tags=tags)
        if "data" not in self._position.value and (data := self._facts.data()):
            self._run.data_sets(data)
            self._position.keep(data=True)
        describe(self._run, self._position, description(self._job, self._facts.source))

    def points(self, last_step: int) -> bool:
        """Points in the order of (step, key), up to `last_step`; False: the turn is over, some are left."""
        while chunk := self._points_after(self._position.value.get("point", [-1, ""]), last_step):
            if self._turn_is_over():
                return False
            names = {} if self._run.former else {key: metric_name(key) for key, *_ in chunk}
            self._run.points([(names.get(key, key), step, value, at) for key, step, value, at in chunk])
            key, step, *_ = chunk[-1]
            self._position.keep(point=[step, key], points=self._position.value.get("points", 0) + len(chunk))
        return True

    def images(self, last_step: int) -> bool:
        """Heatmaps and other pictures up to `last_step`; False: the turn is over, some are left."""
        seen = pictures_of(self._job.id)
        chosen = select(seen.c.key, seen.c.step, seen.c.at, seen.c.file).where(seen.c.step <= last_step)
        rows = [(key, step, at, file) for key, step, at, file in self._session.execute(chosen)]
        if len(rows) == self._position.value.get("images", 0):
            return True
        rows.sort()
        named = str if self._run.former else picture_name
        series = [row for row in rows if self._run.former or row[0] != VIEWS]
        for _ in self._run.images((named(key), step, at, self._folder / file) for key, step, at, file in series):
            if self._turn_is_over():
                return False
        if not self._run.former:
            for key, file in {key: file for key, _, _, file in rows}.items():  # the newest of each
                self._run.picture(self._folder / file, f"{key}.png")
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
