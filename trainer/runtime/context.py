"""What a phase of a job is given: its place among the ranks, its folders, its inputs, and a way to be heard."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from barlow_lab.foreign_text import shown
from barlow_lab.journal import Journal
from barlow_lab.specs.data_sets import DataSource, parse_source
from trainer.data.hearing import nobody
from trainer.runtime import collectives
from trainer.runtime.retention import Retention
from trainer.runtime.stopping import StopRequests

PROGRESS_SECONDS = 1.0
LOADING_SECONDS = 10.0
"""Images that are loaded are spoken of when nothing else was for so long: a batch of large ones may take minutes."""

_WORDS: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"loss {value:.4g}",
    "images_per_second": lambda value: f"{value:,.0f} images/s",
    "eta_seconds": lambda value: f"{int(value) // 60}:{int(value) % 60:02d} left",
}


@dataclass(slots=True)
class Context:
    """One rank of one attempt. Any thread of it may say how far it is.

    `journal` is None on every rank but 0. `inputs` is inputs.json: what the worker resolved.
    """

    rank: int
    world_size: int
    device: torch.device
    threads: int
    run_folder: Path
    attempt_folder: Path
    attempt: int
    inputs: dict[str, Any]
    journal: Journal | None
    stop: StopRequests
    retention: Retention | None = None
    """On rank 0 of a run by hand."""
    step: int | None = None
    """Last finished step, for the outcome of a failure."""
    _phase: str = ""
    _place: dict[str, int | None] = field(default_factory=dict)
    _spoke_at: float = field(default=0.0)
    _turn: threading.RLock = field(default_factory=threading.RLock)

    def data_source(self, name: str) -> DataSource | None:
        """Where this host has the data set `name`; None for a data set that is built in."""
        source = self.inputs.get("data", {}).get(name)
        return None if source is None else parse_source(source)

    def progress(
        self,
        phase: str,
        *,
        step: int | None = None,
        steps: int | None = None,
        epoch: int | None = None,
        epochs: int | None = None,
        always: bool = False,
        **more: float | None,
    ) -> None:
        """Say how far the job is: at most once a second, except for a new phase or `always`. Rank 0 only is heard.

        `more` may hold images_per_second, eta_seconds, loss.
        """
        with self._turn:
            now = time.monotonic()
            silent = phase == self._phase and now - self._spoke_at < PROGRESS_SECONDS and not always
            if self.journal is None or silent:
                return
            self._phase, self._spoke_at = phase, now
            self._place = {"step": step, "steps": steps, "epoch": epoch, "epochs": epochs}
            numbers = {k: round(v, 6) for k, v in more.items() if v is not None and math.isfinite(v)}
            self.journal.append("progress", step=step, epoch=epoch, phase=phase, steps=steps, epochs=epochs, **numbers)
            places = (("epoch", epoch, epochs), ("step", step, steps))
            counts = [f"{name} {value}" + (f"/{of}" if of else "") for name, value, of in places if value is not None]
            words = [say(numbers[name]) for name, say in _WORDS.items() if name in numbers]
            self.say("  ".join([phase, *counts, *words]))

    def working(self, phase: str, quiet_seconds: float | None = None) -> None:
        """Say that a unit of `phase` is done while the job is where it was: only after `quiet_seconds` (1) without a
        word, whatever the phase.

        For what happens in between, such as writing a checkpoint: where that is quick nothing need be said of it.
        """
        with self._turn:
            if time.monotonic() - self._spoke_at >= (PROGRESS_SECONDS if quiet_seconds is None else quiet_seconds):
                self.progress(phase, **self._place, always=True)

    def warn(self, message: str, **data: Any) -> None:
        """A `warning` event, and a line in the log: one line, whatever names of others are in it."""
        message = shown(message)
        if self.journal is not None:
            self.journal.append("warning", step=self.step, message=message, **data)
            self.say(f"warning: {message}")

    @property
    def listener(self) -> Callable[[str], None]:
        """Who is told of doubts about data: nobody of all ranks but the first, so that they look for none."""
        return nobody if self.journal is None else self.warn

    def say(self, line: str) -> None:
        """One line on rank 0's standard output, whatever names of others are in it; nobody needs to read it."""
        with self._turn, contextlib.suppress(OSError):  # a pipe whose reader left, a terminal that is gone
            if self.rank == 0:
                print(shown(line), flush=True)

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """(n_r, ...) -> (sum of n_r, ...) in rank order; ranks may hold different numbers of rows."""
        return collectives.all_gather_rows(rows)
