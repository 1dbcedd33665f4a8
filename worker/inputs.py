"""What an attempt needs from outside its folder, resolved and checked before anything is started."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.completion import BACKBONE_WEIGHTS
from service.database.tables import Checkpoint, Job
from service.evaluations import goes_on
from service.run_folders import checkpoint_folders, run_folder
from service.settings import Settings
from worker.backbone_sources import backbone_on_host
from worker.data_sets import source_on_host
from worker.folders import sha256_of

CHECKPOINT_STATE = "state.pt"
MANIFEST = "manifest.json"


class BadInput(ValueError):
    """An input that is missing or damaged; the message carries the remedy."""


def resolve(session: Session, job: Job, settings: Settings) -> dict[str, Any]:
    """The content of inputs.json: {"backbone": ... | null, "data": {name: source | null}, "resume": [...]}.

    A source is the data set's entry of this host's datasets.yaml, null for one that is built in.

    A backbone is {"path": published folder} or {"checkpoint": step folder}, each with the sha256 it names itself by,
    {"file": weights on this host}, or {"folder": where torchvision's weights are on it}.
    `resume` stands in the inputs of a retry only, of a job that writes checkpoints: see `_checkpoints_of_retried`.

    Raises:
        BadInput: the source's backbone or checkpoint is not there or not what was recorded, or the data set is
            not on this host.
    """
    name = job.spec["data"]["name"]
    try:
        source_of_data = source_on_host(name, settings)
    except ValueError as error:
        raise BadInput(str(error)) from error
    runs_dir = settings.runs_dir
    wanted = job.spec.get("backbone_from") or {}
    try:
        backbone = backbone_on_host(wanted, settings.backbones_dir)
    except ValueError as error:
        raise BadInput(str(error)) from error
    if wanted.get("job") is not None:
        assert job.source_job_id is not None, "a job that names a source was submitted with it"
        source = session.get_one(Job, job.source_job_id)
        select_step = wanted["select"].removeprefix("step ")
        backbone = (
            _published(session, source, runs_dir)
            if select_step == "last"
            else _checkpoint(session, source, int(select_step), runs_dir)
        )
    resolved: dict[str, Any] = {"backbone": backbone, "data": {name: source_of_data}}
    if goes_on(job.spec) and job.retry_of is not None:
        resolved["resume"] = _checkpoints_of_retried(session, job, runs_dir)
    return resolved


def _checkpoints_of_retried(session: Session, job: Job, runs_dir: Path) -> list[dict[str, str]]:
    """Checkpoints of the job that this one is the retry of, and of those that one was a retry of, newest step first:
    {"path": step folder, "sha256": as its manifest names it}. The trainer takes the first whose bytes are those."""
    found: list[tuple[int, int, str, str]] = []
    generation, former = 0, job.retry_of
    while former is not None:
        generation -= 1
        for folder in checkpoint_folders(run_folder(runs_dir, former)).values():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
                found.append((int(manifest["step"]), generation, str(folder), str(manifest["sha256"])))
        former = session.get_one(Job, former).retry_of
    return [{"path": path, "sha256": sha256} for *_, path, sha256 in sorted(found, reverse=True)]


def _published(session: Session, source: Job, runs_dir: Path) -> dict[str, str]:
    row = session.scalar(
        select(Checkpoint)
        .where(Checkpoint.job_id == source.id, Checkpoint.kind == "backbone", Checkpoint.deleted_at.is_(None))
        .order_by(Checkpoint.attempt.desc())
        .limit(1)
    )
    if row is None:
        raise BadInput(f"job {source.name} ({source.id}) is {source.state} and has published no backbone; run it again")
    folder = run_folder(runs_dir, source.id) / row.uri
    _verify(folder / BACKBONE_WEIGHTS, row.sha256, f"the backbone of job {source.name}", "run that job again")
    named = json.loads((folder / "config.json").read_text("utf-8"))["sha256"]
    return {"path": str(folder), "sha256": named}


def _checkpoint(session: Session, source: Job, step: int, runs_dir: Path) -> dict[str, str]:
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
    folder = run_folder(runs_dir, source.id) / row.uri
    _verify(
        folder / CHECKPOINT_STATE, row.sha256, f"the checkpoint of step {step} of job {source.name}", "select `last`"
    )
    return {"checkpoint": str(folder), "sha256": row.sha256}


def _verify(file: Path, sha256: str, what: str, remedy: str) -> None:
    if not file.is_file():
        raise BadInput(f"{what} is not at its place in the run directory ({file.name} is missing); {remedy}")
    if sha256_of(file) != sha256:
        raise BadInput(f"{what} is damaged: {file.name} is not the file that was recorded; {remedy}")
