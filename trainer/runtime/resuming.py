"""Which checkpoint an attempt goes on from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from barlow_lab.disk import sha256_of
from barlow_lab.journal import read_events
from barlow_lab.run_folder import CHECKPOINT_MANIFEST, CHECKPOINT_STATE, JOURNAL, attempt_folder, attempt_folders
from trainer.failures import BadSpec
from trainer.runtime.checkpoints import Manifest, folder_name, read_manifest
from trainer.runtime.context import Context
from trainer.runtime.process_group import broadcast_integers

PHASE = "checking checkpoints"


def agree_on_checkpoint(context: Context, spec_digest: str) -> Path | None:
    """The checkpoint to resume from, as rank 0 finds it, on every rank; None: start from the beginning.

    First those of the earlier attempts of this run, newest first, then those of inputs.json: `resume` is
    [{"path": folder, "sha256": of its state.pt}, ...], newest first, what the run that this one is the retry of has
    left. The first that is whole is taken. A broken one is passed over with a `warning` event that names it.

    Raises:
        BadSpec: on rank 0; a whole one in this run directory belongs to another spec.
    """
    attempt, step, handed = broadcast_integers(
        list(_find(context, spec_digest)) if context.rank == 0 else [0, 0, 0], context.device
    )
    if attempt:
        return attempt_folder(context.run_folder, attempt) / "checkpoints" / folder_name(step)
    return Path(_handed(context)[handed - 1]["path"]) if handed else None


def _find(context: Context, spec_digest: str) -> tuple[int, int, int]:
    """(attempt, step, 0) of this run, (0, 0, place from 1) of inputs.json, or zeros."""
    passed_over = 0
    for attempt, step in _own_newest_first(context):
        folder = attempt_folder(context.run_folder, attempt) / "checkpoints" / folder_name(step)
        manifest = _whole(context, folder, None)
        if manifest is not None:
            if manifest.spec_digest != spec_digest:
                raise BadSpec(
                    f"{folder.name} in this run directory belongs to another spec (digest "
                    f"{manifest.spec_digest[:12]}, this spec has {spec_digest[:12]}); use another --run-dir"
                )
            return attempt, step, 0
        passed_over += 1
    for place, one in enumerate(_handed(context), start=1):
        manifest = _whole(context, Path(one["path"]), one["sha256"])
        if manifest is not None:
            if manifest.spec_digest == spec_digest:
                return 0, 0, place
            _pass_over(context, Path(one["path"]), "it belongs to another spec")
        passed_over += 1
    if passed_over:
        context.warn(f"none of {passed_over} checkpoints can be used: training starts from the beginning")
    return 0, 0, 0


def _own_newest_first(context: Context) -> Iterator[tuple[int, int]]:
    """(attempt, step) of the checkpoints of earlier attempts, up to the step from which their successor went on.

    Beyond it their journals do not count either, so a checkpoint there, passed over once, would leave a gap.
    """
    found: list[tuple[int, int]] = []
    last = math.inf
    for attempt, folder in sorted(attempt_folders(context.run_folder).items(), reverse=True):
        if attempt < context.attempt:
            names = [one.name.removeprefix("step-") for one in folder.glob("checkpoints/step-*")]
            found += [(int(name), attempt) for name in names if name.isdecimal() and int(name) <= last]
            last = min(last, _resume_step(folder))
    return ((attempt, step) for step, attempt in sorted(found, reverse=True))


def counted_metrics(context: Context, step: int) -> set[str]:
    """Names of the metrics of `step` that earlier attempts have told, for an attempt that goes on from `step`: their
    lines count up to the step from which their successor went on."""
    names: set[str] = set()
    for attempt, folder in sorted(attempt_folders(context.run_folder).items(), reverse=True):
        if attempt < context.attempt:
            with suppress(OSError, ValueError):
                lines = [line for line in read_events(folder / JOURNAL) if line.kind == "metrics"]
                names.update(name for line in lines if line.step == step for name in line.data["values"])
            if _resume_step(folder) < step:
                break
    return names


def _resume_step(folder: Path) -> float:
    """The step that an attempt went on from; infinite if it never came to that."""
    try:
        started = (line for line in read_events(folder / JOURNAL) if line.kind == "started")
        return next((float(line.data["resume_step"]) for line in started), math.inf)
    except (OSError, ValueError):
        return math.inf


def _handed(context: Context) -> list[dict[str, str]]:
    return context.inputs.get("resume") or []


def _whole(context: Context, folder: Path, sha256: str | None) -> Manifest | None:
    """The manifest of a checkpoint whose bytes are those that it, and `sha256` if given, promises."""
    try:
        manifest = read_manifest(folder)
        state = folder / CHECKPOINT_STATE
        size = state.stat().st_size
        if size != manifest.bytes:
            raise ValueError(f"{CHECKPOINT_STATE} has {size} bytes, {CHECKPOINT_MANIFEST} says {manifest.bytes}")
        found = sha256_of(state, partial(context.working, PHASE))
        if found != manifest.sha256 or sha256 not in (None, found):
            raise ValueError(f"{CHECKPOINT_STATE} is not the file that was written")
    except (OSError, ValueError, TypeError) as error:
        _pass_over(context, folder, str(error))
        return None
    return manifest


def _pass_over(context: Context, folder: Path, why: str) -> None:
    root = context.run_folder if folder.is_relative_to(context.run_folder) else context.run_folder.parent
    name = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
    context.warn(f"checkpoint {name} is passed over: {why}", checkpoint=name)
