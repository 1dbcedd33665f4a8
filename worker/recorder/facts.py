"""What is said of a job in MLflow beside its points: by the run database, and by the journal of its newest attempt."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.journal import JournalEvent, read_events
from barlow_lab.run_folder import JOURNAL, attempt_folder
from barlow_lab.specs import BackboneJudged, open_stored
from service.database.tables import Attempt, Job
from service.evaluations import backbone_of, data_of
from service.ledger import warnings
from service.mlflow_layout import headline, protocol_told
from service.storable import storable
from worker.recorder.mlflow_run import DataSet
from worker.recorder.parents import parent_of

_OF_THE_MACHINE = ("host", "device", "world_size", "threads", "jpeg_decoder")
WARNINGS = 10
"""The newest ones, in a tag."""
_LINES = 300
"""So far into a journal is looked for its `started` and `data`, beside its progress: of that there is an event a second
before them, as long as the data is loaded."""
_BEHIND = ("metrics", "checkpoint")
"""The kinds of lines that only come behind those two."""
_OURS = "barlow-lab"


class Facts:
    """Of one job, as they are now; `folder` is its run directory."""

    def __init__(self, session: Session, job: Job, folder: Path) -> None:
        self._session = session
        self._job = job
        self._folder = folder

    @property
    def source(self) -> str | None:
        """The name of the job whose backbone this one judges."""
        return None if self._source is None else self._source.name

    def tags(self) -> dict[str, str]:
        """Tags of the run, of the job and of its newest attempt."""
        job = self._job
        tags = {"barlow.kind": job.kind, "barlow.spec_digest": job.spec_digest, "barlow.state": job.state}
        tags |= {f"label.{key}": str(value) for key, value in job.labels.items()}
        if job.user_name is not None:
            tags["mlflow.user"] = job.user_name  # MLflow shows it beside the run
        if self._attempts:
            tags |= {"barlow.attempts": str(len(self._attempts)), "barlow.node": self._attempts[-1].node}
        started = self._journalled("started")
        versions = started.get("versions", {})
        facts = {**versions, **{key: started.get(key) for key in _OF_THE_MACHINE}}
        tags |= {f"barlow.{key}": str(storable(value)) for key, value in facts.items() if value is not None}
        tags |= source_tags(versions.get(_OURS))
        if job.error is not None:
            tags["barlow.error"] = str(job.error.get("message", ""))
        if isinstance(health := (job.result or {}).get("health"), list):
            tags["barlow.health"] = "\n".join(map(str, health))
        if said := [one.message for one in warnings.of_job(self._session, job.id)]:
            more = f"\nand {len(said) - WARNINGS:,} others" if len(said) > WARNINGS else ""
            tags["barlow.warnings"] = "\n".join(said[:WARNINGS]) + more
        if parent := parent_of(self._session, job):
            tags["mlflow.parentRunId"] = parent
        return tags | self._evaluation_tags()

    def data(self) -> list[DataSet]:
        """The splits that it learns from and is judged by; none as long as that is not known."""
        said = self._journalled("data")
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # a journal is a file: it may say anything
            return [
                DataSet(said["name"], split["fingerprint"], said["format"], int(split["images"]), role)
                for role, split in said["splits"].items()
            ]
        return []

    @cached_property
    def _source(self) -> Job | None:
        return None if self._job.source_job_id is None else self._session.get_one(Job, self._job.source_job_id)

    @cached_property
    def _attempts(self) -> list[Attempt]:
        of = select(Attempt).where(Attempt.job_id == self._job.id, Attempt.started_at.is_not(None))
        return list(self._session.scalars(of.order_by(Attempt.number)))

    @cached_property
    def _lines(self) -> dict[str, JournalEvent]:
        """The first line of each kind in the newest attempt's journal, as far as it can be read."""
        found: dict[str, JournalEvent] = {}
        if self._attempts:
            with contextlib.suppress(ValueError):  # a damaged line, of which the other recorder complains
                for line in self._first_lines():
                    found.setdefault(line.kind, line)
                    if found.keys() >= {"started", "data"}:
                        break
        return found

    def _first_lines(self) -> Iterator[JournalEvent]:
        journal = attempt_folder(self._folder, self._attempts[-1].number) / JOURNAL
        lines = (line for line in read_events(journal) if line.kind != "progress")
        return islice(takewhile(lambda line: line.kind not in _BEHIND, lines), _LINES)

    def _journalled(self, kind: str) -> dict[str, Any]:
        return self._lines[kind].data if kind in self._lines else {}

    def _evaluation_tags(self) -> dict[str, str]:
        """What an evaluation measures of whose backbone, to group and filter runs by; its headline once it is there."""
        job, protocol, spec = self._job, protocol_told(self._job), open_stored(self._job.spec)
        if protocol is None or not isinstance(spec, BackboneJudged):
            return {}
        tags = {
            "barlow.protocol": protocol,
            "barlow.data": data_of(spec),
            "barlow.backbone": backbone_of(spec, self.source),
        }
        if self.source is not None:
            tags["barlow.source_job"] = self.source
        if spec.run.published is not None:
            tags["barlow.published_in"] = spec.run.published.source
        if job.result is not None and (words := headline(job)):
            tags["barlow.headline"] = words
        return tags


def source_tags(version: str | None) -> dict[str, str]:
    """What MLflow shows as a run's source and its version: the package that computed it."""
    tags = {"mlflow.source.name": _OURS, "mlflow.source.type": "LOCAL"}
    return tags if version is None else {**tags, "mlflow.source.git.commit": str(storable(version))}
