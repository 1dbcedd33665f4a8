"""What an error means for the job: which outcome it is, and what its message is."""

from __future__ import annotations

import traceback

import torch

from barlow_lab import disk
from barlow_lab.foreign_text import shown_lines
from barlow_lab.outcome import Outcome, OutcomeName
from barlow_lab.specs import SpecError
from trainer.data.errors import DataError

NO_MEMORY = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What torch's CPU allocators say, and what the libraries of a GPU say in place of an OutOfMemoryError."""


class BadSpec(ValueError):
    """The spec cannot be run as it is; the message carries the remedy. Not retried."""


class Diverged(RuntimeError):
    """The loss or its gradient is no longer a number, or the embeddings have collapsed and the spec ends a run by that;
    the message names the step. Not retried."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


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
