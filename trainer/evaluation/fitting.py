"""The loop of an evaluation that trains: steps, tests, checkpoints, stops, the same for every protocol.

Order at a step: update, metrics if due, test if due, checkpoint if due. A checkpoint holds the scores of all tests up
to its step. One that is written because of a stop in the middle of a test lacks that test's: the resumed run begins
with it, unless the journal of an attempt in between has its scores already. So every point is told exactly once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from barlow_lab.specs import BackboneJudged, digest
from barlow_lab.specs.protocols import ScheduleSpec
from trainer.evaluation.descent import Descent
from trainer.evaluation.units import Stopped, Units
from trainer.runtime.checkpoint_writer import CheckpointWriter
from trainer.runtime.context import Context
from trainer.runtime.resuming import agree_on_checkpoint, counted_metrics
from trainer.runtime.started import journal_started
from trainer.training.pace import Pace
from trainer.training.plan import Plan
from trainer.training.saving import begin_checkpoint, take_over

B = TypeVar("B")


def rate_at(schedule: ScheduleSpec, done: int, steps: int) -> float:
    """Rate / peak of the update that follows `done` of `steps` finished ones.

    cosine: (1 + cos(pi done / steps)) / 2; steps: factor ^ (number of `after` reached).
    """
    part = done / steps
    if schedule.shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * part))
    # A part such as 12/20 of the steps is reached to rounding, not a step late.
    return schedule.factor ** sum(done >= round(after * steps, 6) for after in schedule.after)


class Fit(Protocol[B]):
    """What a protocol trains. Every rank holds the same state, and every rank calls each of these."""

    descent: Descent
    fingerprint: str
    """Of the data it is trained and tested on: a checkpoint of other data is refused."""

    def batches(self, done: int, steps: int) -> Generator[B]:
        """This rank's batches of steps done + 1 .. steps."""
        ...

    def update(self, batch: B, step: int, rate: float) -> Mapping[str, Tensor | float]:
        """One step; metrics to record, tensors on the device not yet waited for. `loss` is among them, the global one
        (the same on every rank)."""
        ...

    def test(self, step: int, units: Units) -> dict[str, float]:
        """Scores by name, the same on every rank.

        Raises:
            Stopped: a stop was asked for in the middle.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts; may hear of other ranks."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


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


@dataclass(frozen=True, slots=True)
class Fitting(Generic[B]):
    """A run of `fit` over `plan`.

    `prefix` begins the names of all metrics; `headline` is the score by which the best test is chosen; tests are due
    after every `test_every` steps and at the end.
    """

    spec: BackboneJudged
    fit: Fit[B]
    plan: Plan
    schedule: ScheduleSpec
    prefix: str
    headline: str
    test_every: int
    images_per_step: int

    def run(self, context: Context) -> Scores | None:
        """Train to the end, from the newest valid checkpoint if there is one; None if a stop was asked for.

        Raises:
            BadSpec, DataError, Diverged: what the job ends with.
        """
        run = _Run(self, context)
        with CheckpointWriter(context.device) as writer:
            try:
                run.to_the_end(writer)
            except Stopped:
                run.save(writer)
                return None
        return run.scores


class _Run(Generic[B]):
    """One attempt at a Fitting."""

    def __init__(self, fitting: Fitting[B], context: Context) -> None:
        self._fitting = fitting
        self._fit = fitting.fit
        self._plan = fitting.plan
        self._context = context
        self._units = Units(context)
        self.scores = Scores(fitting.headline)
        self._latest: dict[str, float] = {}
        self._begun_at = context.step = self._resume()
        self._saved = (self._begun_at, self.scores.last_step)
        journal_started(context, fitting.spec, resume_step=self._begun_at, steps=fitting.plan.steps)
        images = fitting.images_per_step
        self._pace = Pace(context, fitting.plan, images_per_step=images, first_step=self._begun_at)

    def to_the_end(self, writer: CheckpointWriter) -> None:
        plan, done = self._plan, self._begun_at
        if done and self._test_due(done) and self.scores.last_step != done:
            self._test(done, told=self._told_before(done))
        if done < plan.steps:
            self._units.finished()  # asked while torch was loaded, or the data
        with closing(self._fit.batches(done, plan.steps)) as batches:
            for step, batch in enumerate(batches, start=done + 1):
                writer.look()
                rate = rate_at(self._fitting.schedule, step - 1, plan.steps)
                values = self._fit.update(batch, step, rate)
                self._context.step = step
                if plan.metrics_due(step):
                    self._record(step, values)
                self._pace.report(step, self._latest.get("loss"))
                if self._test_due(step):
                    self._test(step)
                if plan.checkpoint_due(step):
                    self.save(writer)
                if step < plan.steps:
                    self._units.finished()

    def save(self, writer: CheckpointWriter) -> None:
        """Write a checkpoint, if there is anything that the last one lacks."""
        context, fitting, step = self._context, self._fitting, self._context.step
        state_now = (step or 0, self.scores.last_step)
        if state_now == self._saved or not step:
            return
        self._fit.descent.raise_if_diverged(step)
        self._saved = state_now
        state = {
            "fit": self._fit.state_dict(),
            "descent": self._fit.descent.state_dict(),
            "scores": self.scores.state_dict(),
            "data": self._fit.fingerprint,
            "protocol_version": fitting.spec.protocol_version,
        }
        if context.journal is not None:
            begin_checkpoint(writer, context, self._plan, fitting.spec, state, step=step, metrics=self._latest)

    def _test_due(self, step: int) -> bool:
        return step == self._plan.steps or step % self._fitting.test_every == 0

    def _test(self, step: int, *, told: bool = False) -> None:
        self._fit.descent.raise_if_diverged(step)
        begun = time.monotonic()
        found = self._fit.test(step, self._units)
        self._pace.leave_out(time.monotonic() - begun)
        self.scores.take(step, found)
        if not told:
            self._journal(step, found)

    def _told_before(self, step: int) -> bool:
        """Whether an attempt since the checkpoint has told the scores of `step`, and was killed before it wrote one."""
        name = f"{self._fitting.prefix}_{self._fitting.headline}"
        return self._context.journal is not None and name in counted_metrics(self._context, step)

    def _record(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        known = {name: float(value) for name, value in values.items()}
        self._fit.descent.raise_if_diverged(step, known)
        self._latest = known
        self._journal(step, {**known, "learning_rate": self._fit.descent.rate})

    def _journal(self, step: int, values: Mapping[str, float]) -> None:
        if self._context.journal is not None:
            named = {f"{self._fitting.prefix}_{name}": value for name, value in values.items()}
            self._context.journal.metrics(step, self._plan.epoch(step), named)

    def _resume(self) -> int:
        context = self._context
        folder = agree_on_checkpoint(context, digest(self._fitting.spec))
        if folder is None:
            return 0
        spec = self._fitting.spec
        step, saved = take_over(
            context,
            folder,
            data=spec.data.name,
            fingerprint=self._fit.fingerprint,
            # The checkpoints of before are all of the first versions.
            refused=lambda saved: spec.refused_version(saved.get("protocol_version", 1)),
        )
        self._fit.load_state_dict(saved["fit"])
        self._fit.descent.load_state_dict(saved["descent"])
        self.scores.load_state_dict(saved["scores"])
        self._latest = saved["metrics"]
        return step
