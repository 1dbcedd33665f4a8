"""A training that is judged as it goes on: the fit of every evaluation that trains, but for what its protocol trains.

A checkpoint holds the scores of all tests up to its step.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from barlow_lab.specs import BackboneJudged
from barlow_lab.specs.protocols import ScheduleSpec
from trainer.evaluation.descent import Descent
from trainer.runtime.context import Context
from trainer.runtime.resuming import counted_metrics
from trainer.runtime.units import Units
from trainer.training.loop import Fit
from trainer.training.skipped_images import SkippedBatch
from trainer.training.step_plan import StepPlan

B = TypeVar("B", bound=SkippedBatch)


def rate_at(schedule: ScheduleSpec, done: int, steps: int) -> float:
    """Rate / peak of the update that follows `done` of `steps` finished ones.

    cosine: (1 + cos(pi done / steps)) / 2; steps: factor ^ (number of `after` reached).
    """
    part = done / steps
    if schedule.shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * part))
    # A part such as 12/20 of the steps is reached to rounding, not a step late.
    return schedule.factor ** sum(done >= round(after * steps, 6) for after in schedule.after)


@dataclass(slots=True)
class Scores:
    """Scores of the tests so far. `best` is the test with the highest headline, the earliest of equal ones: chosen on
    the split it is told of, so `last` is the one to quote."""

    headline: str
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    last_step: int = -1
    best_step: int = -1

    def take(self, step: int, scores: Mapping[str, float]) -> None:
        self.last, self.last_step = dict(scores), step
        if not self.best or scores[self.headline] > self.best[self.headline]:
            self.best, self.best_step = dict(scores), step

    def result(self) -> dict[str, Any]:
        """What the result of the job says of them."""
        both = {name: {"last": value, "best": self.best[name]} for name, value in self.last.items()}
        return {"headline": self.headline, "scores": both, "best_step": self.best_step, "steps": self.last_step}

    def state_dict(self) -> dict[str, Any]:
        kept = {"last": self.last, "best": self.best, "last_step": self.last_step, "best_step": self.best_step}
        return {name: dict(value) if isinstance(value, dict) else value for name, value in kept.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class TestedFit(Fit[B, Mapping[str, Tensor | float]]):
    """What a protocol trains, tested as it goes on: the best test is chosen by `headline`, tests are due after every
    `test_every` steps and at the end. The names of all metrics begin with the kind's."""

    descent: Descent
    __test__ = False  # pytest takes it for a class of tests

    def __init__(
        self,
        spec: BackboneJudged,
        plan: StepPlan,
        context: Context,
        *,
        images_per_step: int,
        schedule: ScheduleSpec,
        headline: str,
        test_every: int,
    ) -> None:
        super().__init__(spec, plan, context, Units(context))
        self.images_per_step = images_per_step
        self.scores = Scores(headline)
        self._protocol = spec
        self._schedule = schedule
        self._test_every = test_every
        self._newest: dict[str, float] = {}

    @abstractmethod
    def descend(self, batch: B, step: int, rate: float) -> Mapping[str, Tensor | float]:
        """One step; metrics to record, tensors on the device not yet waited for. `loss` is among them, the global one
        (the same on every rank)."""

    @abstractmethod
    def test(self, step: int, units: Units) -> dict[str, float]:
        """Scores by name, the same on every rank.

        Raises:
            Stopped: a stop was asked for in the middle.
        """

    @abstractmethod
    def trained_state(self) -> dict[str, Any]:
        """Tensors, numbers and texts of what is trained, and of its newest test."""

    @abstractmethod
    def load_trained_state(self, state: dict[str, Any]) -> None:
        """Take over what `trained_state` gave."""

    @property
    def newest(self) -> Mapping[str, float]:
        return self._newest

    @property
    def caught_up(self) -> int:
        return self.scores.last_step

    def update(self, batch: B, step: int) -> Mapping[str, Tensor | float]:
        return self.descend(batch, step, rate_at(self._schedule, step - 1, self.plan.steps))

    def record(self, step: int, left: Mapping[str, Tensor | float]) -> None:
        """At once: the device is waited for."""
        known = {name: float(value) for name, value in left.items()}
        self.descent.raise_if_diverged(step, known)
        self._newest = known
        self._journal(step, {**known, "learning_rate": self.descent.rate})

    def settle(self, step: int) -> None:
        self.descent.raise_if_diverged(step)

    def between_steps(self, step: int, left: Mapping[str, Tensor | float]) -> None:
        if self._test_due(step):
            self._test(step)

    def catch_up(self, step: int) -> None:
        """Tell of a test that a stop cut short, unless the journal of an attempt in between has its scores already: so
        every point is told exactly once."""
        if step and self._test_due(step) and self.scores.last_step != step:
            self._test(step, told=self._told_before(step))

    def state_dict(self) -> dict[str, Any]:
        return {
            "fit": self.trained_state(),
            "descent": self.descent.state_dict(),
            "scores": self.scores.state_dict(),
            "protocol_version": self._protocol.protocol_version,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.load_trained_state(saved["fit"])
        self.descent.load_state_dict(saved["descent"])
        self.scores.load_state_dict(saved["scores"])
        self._newest = saved["metrics"]

    def refused(self, saved: Mapping[str, Any]) -> str | None:
        # The checkpoints of before are all of the first versions.
        return self._protocol.refused_version(saved.get("protocol_version", 1))

    def _test_due(self, step: int) -> bool:
        return step == self.plan.steps or step % self._test_every == 0

    def _test(self, step: int, *, told: bool = False) -> None:
        self.settle(step)
        found = self.test(step, self.units)
        self.scores.take(step, found)
        if not told:
            self._journal(step, found)

    def _told_before(self, step: int) -> bool:
        """Whether an attempt since the checkpoint has told the scores of `step`, and was killed before it wrote one."""
        name = f"{self.spec.kind}_{self.scores.headline}"
        return self.context.journal is not None and name in counted_metrics(self.context, step)

    def _journal(self, step: int, values: Mapping[str, float]) -> None:
        if self.context.journal is not None:
            named = {f"{self.spec.kind}_{name}": value for name, value in values.items()}
            self.context.journal.metrics(step, self.plan.epoch(step), named)
