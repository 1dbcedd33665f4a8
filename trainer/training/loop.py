"""The one loop of whatever trains: steps, metrics, progress, checkpoints, stops, resumes.

What is trained is a Fit: a pretraining, or the training of an evaluation. The loop knows none of them.

Order at a step: update, metrics if due, progress, what the fit does between two steps, a stop if one is asked for,
checkpoint if due or stopping. A checkpoint holds all that was done up to its step. Where a stop cuts short what the fit
does between two steps, the checkpoint lacks that, and the next attempt begins with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, TypeVar

from barlow_lab.specs import digest
from barlow_lab.specs.kinds import KindSpec
from trainer.runtime.checkpoint_writer import CheckpointWriter
from trainer.runtime.compiling import Form
from trainer.runtime.context import Context
from trainer.runtime.resuming import agree_on_checkpoint
from trainer.runtime.started import journal_started
from trainer.runtime.units import Stopped, Units
from trainer.training.pace import Pace
from trainer.training.saving import begin_checkpoint, take_over
from trainer.training.skipped_images import SkippedBatch, SkippedImages
from trainer.training.step_plan import StepPlan

B = TypeVar("B", bound=SkippedBatch)
S = TypeVar("S")


class Fit(ABC, Generic[B, S]):
    """What is trained: batches B go in, and a step leaves S to look at. Every rank holds the same state, and calls each
    of these at the same places."""

    images_per_step: int
    """Of all ranks."""
    fingerprint: str
    """Of the data: a checkpoint of other data is refused."""
    form: Form | None = None
    """Of the network, where there is a choice."""

    def __init__(self, spec: KindSpec, plan: StepPlan, context: Context, units: Units) -> None:
        """`units` are those between which a stop is asked for."""
        self.spec = spec
        self.plan = plan
        self.context = context
        self.units = units
        self.skipped = SkippedImages(context)

    @property
    @abstractmethod
    def newest(self) -> Mapping[str, float]:
        """The newest value of each metric that is known, `loss` among them."""

    @property
    def caught_up(self) -> int:
        """The newest step of which a checkpoint now would hold also what is done after it; 0 where that is no part of
        the state."""
        return 0

    @abstractmethod
    def batches(self, done: int, steps: int) -> Generator[B]:
        """This rank's batches of steps done + 1 .. steps."""

    @abstractmethod
    def update(self, batch: B, step: int) -> S:
        """One step. The host waits for nothing."""

    @abstractmethod
    def record(self, step: int, left: S) -> None:
        """Record the metrics of `step`.

        Raises:
            Diverged: as far as it is known by now.
        """

    @abstractmethod
    def settle(self, step: int) -> None:
        """Wait for the device, and journal what was recorded up to `step`.

        Raises:
            Diverged: the training has.
        """

    def between_steps(self, step: int, left: S) -> None:
        """What is due after `step`, such as a test.

        Raises:
            Stopped: a stop was asked for in the middle.
        """

    def catch_up(self, step: int) -> None:
        """What is still due after `step`, which the run goes on from: a stop cut it short.

        Raises:
            Stopped: a stop was asked for in the middle.
        """

    def prepare(self, checkpoint: Path | None) -> None:
        """What is to be settled before a checkpoint is taken over, or the run begins."""

    def facts(self) -> dict[str, Any]:
        """What the journal says of the run's beginning, beside the number of steps."""
        return {}

    def begin(self) -> None:
        """Say what is to be said before the first step."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts, for the checkpoint."""

    @abstractmethod
    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, and `metrics`, which were the newest."""

    def refused(self, saved: Mapping[str, Any]) -> str | None:
        """Why this version does not go on from such a state, if it does not."""
        return None


def train(fit: Fit[B, S]) -> bool:
    """Train to the end of the plan, from the newest valid checkpoint of the run if there is one; False if a stop was
    asked for.

    Raises:
        BadSpec, DataError, Diverged: what the job ends with.
    """
    return _Loop(fit).run()


class _Loop(Generic[B, S]):
    """One attempt to train a fit."""

    def __init__(self, fit: Fit[B, S]) -> None:
        self._fit = fit
        self._plan = fit.plan
        self._context = fit.context
        self._done = self._resume()
        self._saved = self._moment(self._done)
        journal_started(fit.context, fit.spec, resume_step=self._done, steps=fit.plan.steps, **fit.facts())
        fit.begin()
        fit.context.step = self._done

    def run(self) -> bool:
        with CheckpointWriter(self._context.device) as writer:
            try:
                self._fit.catch_up(self._done)
                if self._done < self._plan.steps:
                    self._fit.units.finished()  # asked while torch was loaded, or the data
            except Stopped:
                self._save(writer, self._done)
                return False
            return self._steps(writer)

    def _steps(self, writer: CheckpointWriter) -> bool:
        fit, plan, context, done = self._fit, self._plan, self._context, self._done
        pace = Pace(context, plan, images_per_step=fit.images_per_step, first_step=done)
        pace.report(done, fit.newest.get("loss"), always=True)
        with closing(fit.batches(done, plan.steps)) as batches:
            for step, batch in enumerate(batches, start=done + 1):
                writer.look()
                left = fit.update(batch, step)
                context.step = step
                fit.skipped.note(batch)
                if plan.metrics_due(step):
                    fit.record(step, left)
                pace.report(step, fit.newest.get("loss"), always=plan.ends_epoch(step))
                stopping = self._stopped_after(step, left, pace)
                del left  # its tensors are not to lie beside those of the next step
                if stopping or plan.checkpoint_due(step):
                    self._save(writer, step)
                elif plan.ends_epoch(step):
                    fit.skipped.share()
                if stopping:
                    return False
        return True

    def _stopped_after(self, step: int, left: S, pace: Pace) -> bool:
        try:
            with pace.standing():
                self._fit.between_steps(step, left)
            if step < self._plan.steps:
                self._fit.units.finished()
        except Stopped:
            return True
        return False

    def _save(self, writer: CheckpointWriter, step: int) -> None:
        """Write a checkpoint, if there is anything that the last one lacks."""
        fit = self._fit
        if self._moment(step) == self._saved or not step:
            return
        fit.skipped.share()
        fit.settle(step)
        self._saved = self._moment(step)
        state = {**fit.state_dict(), "data": fit.fingerprint}
        if self._context.journal is not None:
            begin_checkpoint(
                writer, self._context, self._plan, fit.spec, state, step=step, metrics=fit.newest, form=fit.form
            )

    def _moment(self, step: int) -> tuple[int, int]:
        """What tells two states apart."""
        return step, self._fit.caught_up

    def _resume(self) -> int:
        fit, context = self._fit, self._context
        folder = agree_on_checkpoint(context, digest(fit.spec))
        fit.prepare(folder)
        if folder is None:
            return 0
        data, fingerprint = fit.spec.data.name, fit.fingerprint
        step, saved = take_over(context, folder, data=data, fingerprint=fingerprint, form=fit.form, refused=fit.refused)
        fit.load_state_dict(saved)
        return step
