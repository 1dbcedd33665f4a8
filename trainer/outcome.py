"""How an attempt ends: outcome.json, written once, by the rank that knows the cause first.

A rank that fails breaks the collectives of its peers, so they fail a moment later for a reason that is not the
cause. The first one claims `outcome.claim` by an exclusive create before it lets go of its sockets; everyone else
finds the claim taken and keeps quiet.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from barlow_lab import disk
from barlow_lab.foreign_text import shown_lines
from barlow_lab.given_files import read_json
from barlow_lab.specs import SpecError
from trainer.data.errors import DataError

OutcomeName = Literal["ok", "stopped", "bad_spec", "bad_data", "out_of_memory", "diverged", "crashed"]

FILE_NAME = "outcome.json"
CLAIM_NAME = "outcome.claim"

NO_MEMORY = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What torch's CPU allocators say, and what the libraries of a GPU say in place of an OutOfMemoryError."""


class BadSpec(ValueError):
    """The spec cannot be run as it is; the message carries the remedy. Not retried."""


class Diverged(RuntimeError):
    """The loss or its gradient is no longer a number; the message names the step. Not retried."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an attempt. `backbone` names the exported folder inside the attempt's, if there is one; `reason`, for
    a `stopped` one, is what it was stopped for, as in trainer.runtime.stopping."""

    outcome: OutcomeName
    message: str
    step: int | None = None
    result: dict[str, Any] | None = None
    backbone: str | None = None
    error_class: str | None = None
    traceback: str | None = None
    reason: str | None = None


def of_exception(error: BaseException, step: int | None = None) -> Outcome:
    """What an exception means for the job; `step` is the last finished step, if known."""
    name, message = _classified(error)
    return Outcome(
        outcome=name,
        message=shown_lines(message),
        step=error.step if isinstance(error, Diverged) else step,
        error_class=type(error).__name__,
        traceback=shown_lines("".join(traceback.format_exception(error)))[-20_000:],
    )


def _classified(error: BaseException) -> tuple[OutcomeName, str]:
    text = str(error) or type(error).__name__
    if isinstance(error, BadSpec | SpecError):
        return "bad_spec", text
    if isinstance(error, DataError):
        return "bad_data", text
    if isinstance(error, Diverged):
        return "diverged", text
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(said in text for said in NO_MEMORY):
        return "out_of_memory", f"out of memory: lower batch_size or views.size, or use more slots ({text})"
    if "by peer" in text:
        return "crashed", f"another rank ended without a word, perhaps killed ({text})"
    if any(said in text for said in disk.FULL):
        return "crashed", f"the disk is full, or a limit on it is reached: make room where the runs are ({text})"
    return "crashed", f"{type(error).__name__}: {text}"


def publish(folder: Path, outcome: Outcome) -> bool:
    """Write outcome.json if no rank of this attempt has written one; says whether this call did.

    The fencing token of the attempt comes from the environment (BARLOW_ATTEMPT_TOKEN).
    """
    if not claim(folder):
        return False
    write_json(folder / FILE_NAME, {**asdict(outcome), "token": os.environ.get("BARLOW_ATTEMPT_TOKEN")})
    return True


def claim(folder: Path) -> bool:
    """Take the right to name the end of this attempt, from all of its ranks; False: one of them has it."""
    try:
        os.close(os.open(folder / CLAIM_NAME, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    return True


def read(folder: Path, wait_seconds: float = 0.0) -> dict[str, Any] | None:
    """The outcome of the attempt in `folder`; None if none appears within `wait_seconds`."""
    deadline = time.monotonic() + wait_seconds
    while True:
        with contextlib.suppress(FileNotFoundError):
            value: dict[str, Any] = read_json(folder / FILE_NAME)
            return value
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.05)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with disk.naming(path), temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, allow_nan=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in `folder` to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
