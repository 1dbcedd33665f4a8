"""How fast a training goes, and when it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.runtime.context import Context
from trainer.training.step_plan import StepPlan


class Pace:
    """Progress events with speed and time to go, from this attempt's own steps, of which `first_step` is the last that
    was done before it. What is left out of the speed, such as tests, still counts for the time to go."""

    def __init__(self, context: Context, plan: StepPlan, *, images_per_step: int, first_step: int) -> None:
        self._context = context
        self._plan = plan
        self._images_per_step = images_per_step
        self._first_step = first_step
        self._since = time.monotonic()
        self._left_out = 0.0

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Within it no step is made."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._left_out += time.monotonic() - begun

    def report(self, step: int, loss: float | None, *, always: bool = False) -> None:
        """Say where the run is after `step`; `always`: also where the last word was a moment ago."""
        plan, taken = self._plan, step - self._first_step
        elapsed = time.monotonic() - self._since
        self._context.progress(
            "training",
            step=step,
            steps=plan.steps,
            epoch=plan.epoch(max(step, 1)),
            epochs=plan.epochs,
            always=always,
            images_per_second=self._images_per_step * taken / max(elapsed - self._left_out, 1e-9) if taken else None,
            eta_seconds=(plan.steps - step) * elapsed / taken if taken else None,
            loss=loss,
        )
