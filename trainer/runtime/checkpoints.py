"""Checkpoints: written so that a kill at any byte leaves the previous one good, read by digest."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import torch

from barlow_lab.disk import naming, sync, write_json
from barlow_lab.given_files import open_regular, read_json, refuse_compressed
from barlow_lab.run_folder import CHECKPOINT_MANIFEST, CHECKPOINT_STATE
from barlow_lab.specs.common import CheckpointSpec
from barlow_lab.specs.retention import CheckpointPlace, Recorded
from trainer.runtime import retention
from trainer.runtime.compiling import Form
from trainer.runtime.context import Context

PIECE_BYTES = 2**24


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
    compiled: bool = False
    """Whether the network ran compiled, whose last bits are others,"""
    activation_budget: float | None = None
    """and with which share of its activations kept."""


def versions() -> dict[str, str]:
    """What may change the bits of a run."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": version("torchvision")}
    with suppress(PackageNotFoundError):  # trainer/ may be used where it lies
        found["barlow-lab"] = version("barlow-lab")
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
    form: Form | None = None,
) -> Path:
    """Write the checkpoint of `step` on rank 0 and journal it; by hand, delete what `policy` does not keep.

    `metrics` are the newest values, of which `policy.best_by` names the score; `form` is that of the network, left out
    where it ran as it is written.
    `state` holds tensors, numbers, texts and containers of them: it must load with weights_only. Whatever was
    journalled before is on the disk before the checkpoint is, so a resume never lacks a line. In the journal lines of
    later steps may stand before the checkpoint's: the loop goes on meanwhile (CheckpointWriter).

    Raises:
        OSError: the disk does not take it; names the file. Nothing of it is left, older ones are as they were.
    """
    assert context.journal is not None, "only rank 0 writes checkpoints"
    context.journal.sync()
    parent = context.attempt_folder / "checkpoints"
    parent.mkdir(exist_ok=True)
    final = parent / folder_name(step)
    temporary = parent / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        sha256 = _write_state(temporary / CHECKPOINT_STATE, state, partial(context.working, "checkpoint"))
        manifest = Manifest(
            step=step,
            epoch=epoch,
            sha256=sha256,
            bytes=(temporary / CHECKPOINT_STATE).stat().st_size,
            spec_digest=spec_digest,
            spec=spec,
            versions=versions(),
            world_size=context.world_size,
            threads=context.threads,
            compiled=form is not None and form.compiled,
            activation_budget=form.activation_budget if form is not None else None,
        )
        write_json(temporary / CHECKPOINT_MANIFEST, asdict(manifest))
        temporary.rename(final)
    except BaseException:
        # What is left takes the room that outcome.json needs on a full disk.
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(parent)
    score = metrics.get(policy.best_by) if policy.best_by is not None else None
    score = score if score is not None and math.isfinite(score) else None
    new = Recorded(CheckpointPlace(context.attempt, step), milestone, score)
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


def _write_state(path: Path, state: dict[str, Any], tick: Callable[[], None]) -> str:
    """Write and sync state.pt; returns its SHA-256 (hex)."""
    with naming(path), path.open("wb") as file:
        writer = _StateWriter(file, tick)
        try:
            torch.save(state, writer)  # type: ignore[arg-type]
        except Exception:
            if writer.error is not None:
                raise writer.error from None
            raise
        file.flush()
        tick()
        os.fsync(file.fileno())
    tick()
    return writer.digest.hexdigest()


def read_manifest(folder: Path, root: Path | None = None) -> Manifest:
    """The manifest of the checkpoint in `folder`; with `root` it lies below that, links followed.

    Raises:
        OSError, ValueError, TypeError: there is none, or it is not a manifest.
    """
    return Manifest(**read_json(folder / CHECKPOINT_MANIFEST, within=root))


def read_state(folder: Path, device: torch.device, root: Path | None = None) -> dict[str, Any]:
    """The state of a checkpoint, its tensors on `device`. Nothing in the file is executed. `root` as for
    `read_manifest`.

    Raises:
        ValueError: it is a compressed archive, or none.
    """
    with open_regular(folder / CHECKPOINT_STATE, within=root) as file:
        try:
            refuse_compressed(file)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{CHECKPOINT_STATE} is no archive of torch.save: {error}") from error
        # The descriptor's name: it is the file that was looked at, and torch reads what has a name without copies.
        opened = f"/proc/self/fd/{file.fileno()}"
        state: dict[str, Any] = torch.load(opened, map_location=device, weights_only=True)
    return state


class _StateWriter:
    """What torch.save writes to, front to back: the file, its digest, a tick for every piece, and the first error,
    which torch replaces by one of its own."""

    def __init__(self, file: IO[bytes], tick: Callable[[], None]) -> None:
        self.digest = hashlib.sha256()
        self.error: OSError | None = None
        self._file = file
        self._tick = tick

    def write(self, data: bytes | memoryview) -> int:
        rest = memoryview(data).cast("B")
        for start in range(0, len(rest), PIECE_BYTES):
            piece = rest[start : start + PIECE_BYTES]
            try:
                self._file.write(piece)
            except OSError as error:
                self.error = self.error or error
                raise
            self.digest.update(piece)
            self._tick()
        return len(rest)

    def flush(self) -> None:
        self._file.flush()
