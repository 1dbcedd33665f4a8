"""What an attempt needs from outside its folder, resolved and checked before anything is started.

First what the database says, then what the files say: a disk may keep one waiting, and holds no session meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.disk import sha256_of
from barlow_lab.given_files import read_json
from barlow_lab.run_folder import (
    BACKBONE_CONFIG,
    BACKBONE_WEIGHTS,
    CHECKPOINT_MANIFEST,
    CHECKPOINT_STATE,
    checkpoint_folders,
    run_folder,
)
from barlow_lab.specs import BackboneFrom, open_stored
from service.database.tables import Checkpoint, Job
from service.settings import Settings
from worker.backbone_sources import backbone_on_host
from worker.data_sets import source_on_host

Tick = Callable[[], None]


class BadInput(ValueError):
    """An input that is missing or damaged; the message carries the remedy."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What another job left, as the database knows it: the file of its weights with its digest."""

    step: int | None
    """None: its published backbone."""
    file: Path
    sha256: str
    job: str

    def resolve(self, tick: Tick) -> dict[str, str]:
        folder = self.file.parent
        if self.step is not None:
            what, remedy = f"the checkpoint of step {self.step} of job {self.job}", "select `last`"
            _verify(self.file, self.sha256, what, remedy, tick)
            return {"checkpoint": str(folder), "sha256": self.sha256}
        what, remedy = f"the backbone of job {self.job}", "run that job again"
        _verify(self.file, self.sha256, what, remedy, tick)
        try:
            return {"path": str(folder), "sha256": str(read_json(folder / BACKBONE_CONFIG, within=folder)["sha256"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{what} is damaged: {BACKBONE_CONFIG} does not describe it ({error}); {remedy}") from error


@dataclass(frozen=True, slots=True)
class Wanted:
    """The inputs of one attempt, looked up in the database and not yet on the disk."""

    settings: Settings
    data: str
    backbone_from: BackboneFrom | None
    source: _Recorded | None
    """What `backbone_from` names of another job."""
    retried: Sequence[UUID] | None
    """The job that this one is the retry of, and those that one was a retry of, newest first; None: it starts over."""

    def resolve(self, tick: Tick = lambda: None) -> dict[str, Any]:
        """The content of inputs.json: {"backbone": ... | null, "data": {name: source | null}, "resume": [...]}.

        A source is the data set's entry of this host's datasets.yaml, null for one that is built in.

        A backbone is {"path": published folder} or {"checkpoint": step folder}, each with the sha256 it names itself
        by, {"file": weights on this host}, or {"folder": where torchvision's weights are on it}.
        `resume` stands in the inputs of a retry only, of a job that writes checkpoints. `tick` is called for every
        piece of a file that is read.

        Raises:
            BadInput: the source's backbone or checkpoint is not there or not what was recorded, or the data set is
                not on this host.
        """
        try:
            data = {self.data: source_on_host(self.data, self.settings)}
            tick()
            backbone = backbone_on_host(self.backbone_from, self.settings.backbones_dir) if self.backbone_from else None
        except ValueError as error:
            raise BadInput(str(error)) from error
        tick()
        if self.source is not None:
            backbone = self.source.resolve(tick)
        resolved: dict[str, Any] = {"backbone": backbone, "data": data}
        return resolved if self.retried is None else resolved | {"resume": self._checkpoints_of(self.retried, tick)}

    def _checkpoints_of(self, retried: Sequence[UUID], tick: Tick) -> list[dict[str, str]]:
        """Checkpoints of these jobs, newest step first: {"path": step folder, "sha256": as its manifest names it}. The
        trainer takes the first whose bytes are those."""
        found: list[tuple[int, int, str, str]] = []
        for generation, job in enumerate(retried, start=1):
            for folder in checkpoint_folders(run_folder(self.settings.runs_dir, job)).values():
                tick()
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                    manifest = read_json(folder / CHECKPOINT_MANIFEST)
                    found.append((int(manifest["step"]), -generation, str(folder), str(manifest["sha256"])))
        return [{"path": path, "sha256": sha256} for *_, path, sha256 in sorted(found, reverse=True)]


def look_up(session: Session, job: Job, settings: Settings) -> Wanted:
    """What the database says of a job's inputs; no file is looked at.

    Raises:
        BadInput: the job that it takes its backbone from has none to give.
    """
    spec = open_stored(job.spec)
    wanted = spec.backbone_from_elsewhere
    source = None
    if wanted is not None and wanted.job is not None:
        assert job.source_job_id is not None, "a job that names a source was submitted with it"
        of = session.get_one(Job, job.source_job_id)
        source = (
            _published(session, of, settings.runs_dir)
            if wanted.step is None
            else _checkpoint(session, of, wanted.step, settings.runs_dir)
        )
    retried = _retried(session, job) if spec.goes_on and job.retry_of is not None else None
    return Wanted(settings, spec.data.name, wanted, source, retried)


def _retried(session: Session, job: Job) -> list[UUID]:
    found = []
    former = job.retry_of
    while former is not None:
        found.append(former)
        former = session.get_one(Job, former).retry_of
    return found


def _published(session: Session, source: Job, runs_dir: Path) -> _Recorded:
    row = session.scalar(
        select(Checkpoint)
        .where(Checkpoint.job_id == source.id, Checkpoint.kind == "backbone", Checkpoint.deleted_at.is_(None))
        .order_by(Checkpoint.attempt.desc())
        .limit(1)
    )
    if row is None:
        raise BadInput(f"job {source.name} ({source.id}) is {source.state} and has published no backbone; run it again")
    return _Recorded(None, run_folder(runs_dir, source.id) / row.uri / BACKBONE_WEIGHTS, row.sha256, source.name)


def _checkpoint(session: Session, source: Job, step: int, runs_dir: Path) -> _Recorded:
    rows = session.scalars(
        select(Checkpoint)
        .where(Checkpoint.job_id == source.id, Checkpoint.kind != "backbone", Checkpoint.deleted_at.is_(None))
        .order_by(Checkpoint.step, Checkpoint.attempt)
    ).all()
    found = [row for row in rows if row.step == step]
    if not found:
        kept = ", ".join(str(n) for n in sorted({row.step for row in rows})) or "none"
        raise BadInput(
            f"job {source.name} ({source.id}) has no checkpoint of step {step}; kept: {kept}. Select one of them or "
            "`last`, or raise run.checkpoint.keep_last of that job"
        )
    row = found[-1]
    return _Recorded(step, run_folder(runs_dir, source.id) / row.uri / CHECKPOINT_STATE, row.sha256, source.name)


def _verify(file: Path, sha256: str, what: str, remedy: str, tick: Tick) -> None:
    if not file.is_file():
        raise BadInput(f"{what} is not at its place in the run directory ({file.name} is missing); {remedy}")
    if sha256_of(file, tick) != sha256:
        raise BadInput(f"{what} is damaged: {file.name} is not the file that was recorded; {remedy}")
