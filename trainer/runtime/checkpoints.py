"""Checkpoints: written so that a kill at any byte leaves the previous one good, read by digest (DESIGN 4)."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision

from trainer import outcome
from trainer.run_directory import attempt_folder, attempts
from trainer.runtime import retention
from trainer.runtime.context import Context
from trainer.runtime.process_group import broadcast_integers
from trainer.specs.common import CheckpointSpec
from trainer.specs.retention import Place, Recorded

STATE_FILE = "state.pt"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What manifest.json says. `epoch` counts from 1; `spec` is the resolved spec the state belongs to."""

    step: int
    epoch: int
    sha256: str
    bytes: int
    spec_digest: str
    spec: dict[str, Any]
    versions: dict[str, str]
    world_size: int
    threads: int


def versions() -> dict[str, str]:
    """What may change the bits of a run."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    return {**found, "cuda": torch.version.cuda or "none"} if torch.cuda.is_available() else found


def folder_name(step: int) -> str:
    """`step-00001200`."""
    return f"step-{step:08d}"


def write_checkpoint(
    context: Context,
    state: dict[str, Any],
    *,
    step: int,
    epoch: int,
    spec: dict[str, Any],
    spec_digest: str,
    policy: CheckpointSpec,
    milestone: bool,
    metrics: Mapping[str, float],
) -> Path:
    """Write the checkpoint of `step` on rank 0 and journal it; by hand, delete what `policy` does not keep.

    `metrics` are the newest values, of which `policy.best_by` names the score.
    `state` holds tensors, numbers, texts and containers of them: it must load with weights_only. Whatever was
    journalled before is on the disk before the checkpoint is, so a resume never lacks a line.
    """
    assert context.journal is not None, "only rank 0 writes checkpoints"
    context.journal.sync()
    parent = context.attempt_folder / "checkpoints"
    parent.mkdir(exist_ok=True)
    final = parent / folder_name(step)
    temporary = parent / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    with (temporary / STATE_FILE).open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    manifest = Manifest(
        step=step,
        epoch=epoch,
        sha256=sha256_of(temporary / STATE_FILE),
        bytes=(temporary / STATE_FILE).stat().st_size,
        spec_digest=spec_digest,
        spec=spec,
        versions=versions(),
        world_size=context.world_size,
        threads=context.threads,
    )
    outcome.write_json(temporary / MANIFEST_FILE, asdict(manifest))
    temporary.rename(final)
    outcome.sync_folder(parent)
    score = metrics.get(policy.best_by) if policy.best_by is not None else None
    score = score if score is not None and math.isfinite(score) else None
    new = Recorded(Place(context.attempt, step), milestone, score)
    stale = context.retention.stale(new, policy) if context.retention is not None else []
    context.journal.append(
        "checkpoint",
        step=step,
        epoch=epoch,
        checkpoint="milestone" if milestone else "last",
        score=score,
        path=f"checkpoints/{final.name}",
        sha256=manifest.sha256,
        bytes=manifest.bytes,
        deleted=[os.path.relpath(folder, context.attempt_folder) for folder in stale],
    )
    for folder in stale:
        retention.delete(folder)
    return final


def agree_on_newest(context: Context, spec_digest: str) -> Path | None:
    """The checkpoint to resume from, as rank 0 finds it, on every rank.

    Raises:
        BadSpec: on rank 0; see `newest_valid`.
    """
    found = newest_valid(context, spec_digest) if context.rank == 0 else None
    place = [int(found.parent.parent.name), int(found.name.removeprefix("step-"))] if found else [0, 0]
    attempt, step = broadcast_integers(place, context.device)
    if attempt == 0:
        return None
    return attempt_folder(context.run_folder, attempt) / "checkpoints" / folder_name(step)


def newest_valid(context: Context, spec_digest: str) -> Path | None:
    """The newest checkpoint of the earlier attempts of this run whose bytes are those its manifest promises.

    A broken one is passed over with a `warning` event.

    Raises:
        BadSpec: a valid one belongs to another spec.
    """
    for folder in _newest_first(context):
        try:
            manifest = read_manifest(folder)
            state = folder / STATE_FILE
            if state.stat().st_size != manifest.bytes or sha256_of(state) != manifest.sha256:
                raise ValueError(f"{STATE_FILE} is not the file that was written")
        except (OSError, ValueError, TypeError) as error:
            place = folder.relative_to(context.run_folder).as_posix()
            context.warn(f"checkpoint {place} is passed over: {error}", checkpoint=place)
            continue
        if manifest.spec_digest != spec_digest:
            raise outcome.BadSpec(
                f"{folder.name} in this run directory belongs to another spec (digest {manifest.spec_digest[:12]}, "
                f"this spec has {spec_digest[:12]}); use another --run-dir"
            )
        return folder
    return None


def _newest_first(context: Context) -> Iterator[Path]:
    earlier = [folder for number, folder in attempts(context.run_folder).items() if number < context.attempt]
    found = [(step.name, attempt.name, step) for attempt in earlier for step in attempt.glob("checkpoints/step-*")]
    return (folder for *_, folder in sorted(found, reverse=True))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the checkpoint in `folder`.

    Raises:
        OSError, ValueError, TypeError: there is none, or it is not a manifest.
    """
    return Manifest(**json.loads((folder / MANIFEST_FILE).read_text("utf-8")))


def read_state(folder: Path, device: torch.device) -> dict[str, Any]:
    """The state of a checkpoint, its tensors on `device`. Nothing in the file is executed."""
    state: dict[str, Any] = torch.load(folder / STATE_FILE, map_location=device, weights_only=True)
    return state


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
