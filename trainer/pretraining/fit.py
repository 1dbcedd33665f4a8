"""What a pretraining trains, step by step: the fit of the loop that it is.

Shape suffixes: 2 views, n images of this rank, d features of the embedding, f of the backbone.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from barlow_lab.specs import PretrainSpec
from trainer.data.batch import Batch
from trainer.data.loading.training import TrainingBatches
from trainer.data.views.photometry import finish
from trainer.diagnostics.base import BatchSeen, NetworkSeen
from trainer.diagnostics.listed import Diagnostics
from trainer.diagnostics.recorded_names import judge_terms
from trainer.models.projector import rank_warning
from trainer.optim.schedules import Schedule
from trainer.pretraining.image_pass import ImagePass
from trainer.runtime import checkpoints
from trainer.runtime.compiling import CompileChoice
from trainer.runtime.context import Context
from trainer.runtime.units import Steps
from trainer.train_state import TrainState, Update
from trainer.training.loop import Fit
from trainer.training.metric_series import MetricSeries
from trainer.training.step_plan import StepPlan


@dataclass(frozen=True, slots=True)
class Seen:
    """What a step leaves to look at: the views of this rank's images, and what came of them."""

    views: tuple[Tensor, Tensor]
    update: Update


class Pretraining(Fit[Batch, Seen]):
    """Backbone, projector and objective; metrics are read from the device one interval late."""

    network: CompileChoice

    def __init__(
        self,
        spec: PretrainSpec,
        plan: StepPlan,
        context: Context,
        *,
        state: TrainState,
        batches: TrainingBatches,
        schedule: Schedule,
        image_pass: ImagePass,
        diagnostics: Diagnostics,
    ) -> None:
        super().__init__(spec, plan, context, Steps(context))
        self.state = state
        self.diagnostics = diagnostics
        self.images_per_step = spec.batch_size
        self.fingerprint = batches.fingerprint
        self._backbone = spec.backbone
        self._batches = batches
        self._schedule = schedule
        self._image_pass = image_pass
        self._named: tuple[str, ...] = ()  # the objective's metrics whose names are good
        self._series = MetricSeries(context, spec.batch_size, state.objective.concern)

    @property
    def newest(self) -> Mapping[str, float]:
        return self._series.last

    def prepare(self, checkpoint: Path | None) -> None:
        """Choose the form of the network, in a resumed run as before."""
        former = None if checkpoint is None else checkpoints.read_manifest(checkpoint)
        tick = partial(self.context.working, "compiling")
        self.form = self.network = self.state.choose_network(self.context.world_size, tick, former)

    def facts(self) -> dict[str, Any]:
        return {
            "steps_per_epoch": self.plan.steps_per_epoch,
            "warmup_steps": self._schedule.warmup_steps,
            "parameter_groups": self.state.groups.counts(),
            "network": asdict(self.network),
        }

    def begin(self) -> None:
        context, steps, warmup_steps = self.context, self.plan.steps, self._schedule.warmup_steps
        context.say(self.network.said())
        if self._backbone.frozen:
            kept = "that never move" if self._backbone.keeps_statistics else "that follow those of the batch"
            context.say(f"backbone frozen: only the projector is trained; it has running statistics {kept}")
        if warmup_steps >= steps:
            context.warn(f"the warm-up of {warmup_steps} steps does not end within the {steps} steps of this run")
        if said := rank_warning(self.state.model["projector"], self.images_per_step):
            context.warn(said)

    def batches(self, done: int, steps: int) -> Generator[Batch]:
        return self._batches.iterate(done, steps)

    def update(self, batch: Batch, step: int) -> Seen:
        views = finish(batch, self.context.device)
        update = self.state.update(*views, step, batch.indices)
        named = (*update.terms.parts, *update.terms.known)
        if named != self._named:
            judge_terms(update.terms, self.state.objective, self.diagnostics.metrics_taken)
            self._named = named
        self._series.count(batch)
        return Seen(views, update)

    def record(self, step: int, left: Seen) -> None:
        """Begin to read the metrics of `step`, and journal those of the interval before."""
        update, terms = left.update, left.update.terms
        on_device = {"loss": terms.loss.detach(), **terms.parts, "grad_norm": update.gradient_norm}
        if update.skipped_steps is not None:
            on_device["skipped_steps"] = update.skipped_steps
        known = {**terms.known, "learning_rate": update.learning_rate}
        self._series.take(step, self.plan.epoch(step), on_device, known, update.first_bad_step)
        self.state.raise_if_diverged(self._series.first_bad_step)  # as of one interval ago: nothing to wait for

    def settle(self, step: int) -> None:
        self._series.flush()
        self.state.raise_if_diverged()

    def between_steps(self, step: int, left: Seen) -> None:
        """Diagnostics, then the pass over the images that the next epoch begins with."""

        def see() -> BatchSeen:
            self.settle(step)
            update = left.update
            z_a_nd, z_b_nd, features_a_nf, features_b_nf = (
                self.context.all_gather_rows(rows) for rows in (update.z_a_nd, update.z_b_nd, *update.features_2nf)
            )
            return BatchSeen(
                step,
                self.plan.epoch(step),
                self.state.model,
                left.views,
                z_a_nd,
                z_b_nd,
                features_a_nf,
                features_b_nf,
                update.terms,
            )

        with self._series.clock_stopped():
            self.diagnostics.observe_batch(step, see, self._series.last)
            self._look_at_network(step, resumed=False)

    def catch_up(self, step: int) -> None:
        with self._series.clock_stopped():
            self._look_at_network(step, resumed=True)

    def _look_at_network(self, step: int, *, resumed: bool) -> None:
        if self.diagnostics.network_due(step):
            self.settle(step)
            seen = NetworkSeen(step, self.plan.epoch(step), self.state.model)
            self.diagnostics.observe_network(seen, self._series.last, resumed=resumed)
        if self._image_pass.due(step):
            self.settle(step)
            self._image_pass.make(step)

    def state_dict(self) -> dict[str, Any]:
        beside = {"unreadable": self.skipped.names, **self._image_pass.state_dict(), **self.diagnostics.state_dict()}
        return {**self.state.state_dict(), **beside}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.state.load_state_dict(saved)
        self._series.last = saved["metrics"]
        self.skipped.remember(saved.get("unreadable", []))
        self._image_pass.load_state_dict(saved)
        self.diagnostics.load_state_dict(saved)
