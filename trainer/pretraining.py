"""Pretraining: the loop."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from barlow_lab.outcome import Outcome
from barlow_lab.run_folder import BACKBONE
from barlow_lab.specs import PretrainSpec, digest
from barlow_lab.specs.data_sets import DataSource, without_labels
from trainer.data.datasets import Images, whole_of
from trainer.data.errors import DataError
from trainer.data.folder_names import folders_left
from trainer.data.loading.training import TrainingBatches
from trainer.data.registry import open_images
from trainer.data.views.photometry import finish
from trainer.data.views.picture import PICTURE_IMAGES, write_views_picture
from trainer.diagnostics.base import BatchSeen, Diagnosed, NetworkSeen
from trainer.diagnostics.listed import Diagnostics
from trainer.evaluation.units import Stopped
from trainer.failures import BadSpec, Diverged
from trainer.image_pass import ImagePass
from trainer.metric_series import MetricSeries
from trainer.models.exported import backbone_digest, save_backbone
from trainer.models.projector import rank_warning
from trainer.optim.schedules import schedule_of
from trainer.runtime import checkpoints, collectives
from trainer.runtime.checkpoint_writer import CheckpointWriter
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.runtime.data_facts import journal_data
from trainer.runtime.data_warnings import warn_of_data
from trainer.runtime.resuming import agree_on_checkpoint
from trainer.runtime.started import journal_started
from trainer.skipped_images import SkippedImages
from trainer.train_state import TrainState, Update
from trainer.training.pace import Pace
from trainer.training.plan import Plan
from trainer.training.saving import begin_checkpoint, take_over


def pretrain(spec: PretrainSpec, context: Context) -> Outcome:
    """Pretrain a backbone, from the newest valid checkpoint of the run if there is one.

    Raises:
        BadSpec, DataError, Diverged: what the run ends with; anything else is a crash.
    """
    dataset, batches = _open_batches(spec, context)
    per_epoch = batches.steps_per_epoch
    steps = min(spec.epochs * per_epoch, spec.max_steps or spec.epochs * per_epoch)
    plan = Plan(steps, per_epoch, spec)

    context.progress("building")
    schedule = schedule_of(spec, steps_per_epoch=per_epoch, total_steps=steps)
    state = TrainState(spec, schedule, context.device)
    if spec.embedding_width() is None:
        _judge(spec, len(dataset), state.features)
    diagnostics = Diagnostics(Diagnosed(spec, plan, state.model, state.objective, dataset, context))
    journal_data(context, spec.data.name, _source(spec, context), {"train": dataset, **diagnostics.looked_at})
    image_pass = ImagePass(spec, plan, state, dataset, context)
    series = MetricSeries(context, spec.batch_size, state.objective.concern)
    checkpoint = agree_on_checkpoint(context, digest(spec))
    former = None if checkpoint is None else checkpoints.read_manifest(checkpoint)
    network = state.choose_network(context.world_size, partial(context.working, "compiling"), former)
    skipped = SkippedImages(context)
    done = 0
    if checkpoint is not None:
        done = _resume(checkpoint, spec, context, state, series, skipped, image_pass, diagnostics, batches.fingerprint)
    journal_started(
        context,
        spec,
        resume_step=done,
        steps=steps,
        steps_per_epoch=per_epoch,
        warmup_steps=schedule.warmup_steps,
        parameter_groups=state.groups.counts(),
        network=asdict(network),
    )
    context.say(network.said())
    if spec.backbone.frozen:
        kept = "that never move" if spec.backbone.keeps_statistics else "that follow those of the batch"
        context.say(f"backbone frozen: only the projector is trained; it has running statistics {kept}")

    if schedule.warmup_steps >= steps:
        context.warn(f"the warm-up of {schedule.warmup_steps} steps does not end within the {steps} steps of this run")
    if said := rank_warning(state.model["projector"], spec.batch_size):
        context.warn(said)
    context.step = done
    if done < steps and context.stop.requested(done):  # asked while torch was loaded, or the data
        return _stopped(context, done)
    looks = _Looks(diagnostics, context, plan, state, series)
    if not looks.take(done, resumed=True):
        return _stopped(context, done)
    if image_pass.due(done) and not image_pass.make(series, done):
        return _stopped(context, done)
    pace = Pace(context, plan, images_per_step=spec.batch_size, first_step=done)
    pace.report(done, series.last.get("loss"), always=True)
    with CheckpointWriter(context.device) as writer:
        for batch in batches.iterate(done, steps):
            writer.look()
            views = finish(batch, context.device)
            update = state.update(*views, batch.step, batch.indices)
            context.step = batch.step
            series.count(batch)
            skipped.note(batch)
            if plan.metrics_due(batch.step):
                _record_metrics(series, plan, batch.step, update)
                state.raise_if_diverged(series.first_bad_step)  # as of one interval ago: nothing to wait for
            looks.take_at_batch(batch.step, update, views)
            pace.report(batch.step, series.last.get("loss"), always=plan.ends_epoch(batch.step))
            # A stop has cut a diagnostic short, or the pass over the images.
            halted = not looks.take(batch.step)
            halted = halted or (image_pass.due(batch.step) and not image_pass.make(series, batch.step))

            stopping = halted or (batch.step < steps and context.stop.requested(batch.step))
            saving = stopping or plan.checkpoint_due(batch.step)
            if saving or plan.ends_epoch(batch.step):
                skipped.share()
            if saving:
                series.flush()
                state.raise_if_diverged()
                beside: dict[str, Any] = {"data": batches.fingerprint, "unreadable": skipped.names}
                beside |= image_pass.state_dict() | diagnostics.state_dict()
                if context.journal is not None:
                    now = {**state.state_dict(), **beside}
                    newest = series.last
                    begin_checkpoint(
                        writer, context, plan, spec, now, step=batch.step, metrics=newest, form=state.choice
                    )
            if stopping:
                return _stopped(context, batch.step)
    return _export(
        spec, context, plan, state, series, dataset, unreadable=len(skipped.names), last_words=diagnostics.last_words
    )


def _stopped(context: Context, step: int) -> Outcome:
    reason = context.stop.reason
    return Outcome("stopped", f"stopped at step {step}: {reason}", step=step, reason=reason)


def _open_batches(spec: PretrainSpec, context: Context) -> tuple[Images, TrainingBatches]:
    name, images = ("batch_size", spec.batch_size) if spec.micro_batch is None else ("micro_batch", spec.micro_batch)
    if images % context.world_size:
        raise BadSpec(
            f"{name} {images} is global and {context.world_size} ranks do not divide it; "
            f"change {name} or the number of ranks"
        )
    context.progress("loading data")
    source = _source(spec, context)
    dataset = open_images(
        spec.data.name,
        spec.data.split,
        source=source,
        limit=spec.data.limit,
        tick=partial(context.working, "loading data"),
        warn=context.listener,
    )
    warn_of_data(spec.data.name, source, {spec.data.split: dataset}, context, "loading data")
    if context.journal is not None and (said := folders_left(dataset, partial(context.working, "loading data"))):
        context.warn(f"data set {spec.data.name!r}, split {spec.data.split!r}: {said}")
    _judge(spec, len(dataset))
    if len(set(collectives.all_gather_texts([dataset.fingerprint], context.device))) > 1:
        raise DataError(f"the ranks do not see the same files of data set {spec.data.name!r}; is it being written to?")
    batches = TrainingBatches(
        dataset,
        spec.views,
        batch_size=spec.batch_size,
        seed=spec.seed,
        rank=context.rank,
        world_size=context.world_size,
        threads=context.threads,
        micro_batch=spec.micro_batch,
        pinned=context.device.type == "cuda",
        whole=context.device.type == "cpu",
        tick=partial(context.working, "loading images", quiet_seconds=LOADING_SECONDS),
    )
    if context.journal is not None:
        write_views_picture(context.attempt_folder / "views.png", dataset, batches.first_rows(PICTURE_IMAGES))
        context.journal.append("image", step=0, key="views", file="views.png")
    return dataset, batches


def _judge(spec: PretrainSpec, images: int, features: int | None = None) -> None:
    if faults := spec.objective_faults(images, features):
        raise BadSpec("; ".join(f"objective.{field}: {said}" for field, said in faults.items()))


def _source(spec: PretrainSpec, context: Context) -> DataSource | None:
    source = context.data_source(spec.data.name)
    if spec.data.format is None:
        return source
    try:
        return without_labels(spec.data.name, source, spec.data.split)
    except ValueError as error:
        raise BadSpec(f"data.format: {error}") from error


def _resume(
    folder: Path,
    spec: PretrainSpec,
    context: Context,
    state: TrainState,
    series: MetricSeries,
    skipped: SkippedImages,
    image_pass: ImagePass,
    diagnostics: Diagnostics,
    fingerprint: str,
) -> int:
    """Take over a checkpoint; returns its step.

    Raises:
        DataError: the data set of `fingerprint` is not the one that the checkpoint was trained on.
    """
    step, saved = take_over(context, folder, data=spec.data.name, fingerprint=fingerprint, form=state.choice)
    state.load_state_dict(saved)
    series.last = saved["metrics"]
    skipped.remember(saved.get("unreadable", []))
    image_pass.load_state_dict(saved)
    diagnostics.load_state_dict(saved)
    return step


def _record_metrics(series: MetricSeries, plan: Plan, step: int, update: Update) -> None:
    terms = update.terms
    on_device = {"loss": terms.loss.detach(), **terms.parts, "grad_norm": update.gradient_norm}
    if update.skipped_steps is not None:
        on_device["skipped_steps"] = update.skipped_steps
    known = {**terms.known, "learning_rate": update.learning_rate}
    series.take(step, plan.epoch(step), on_device, known, update.first_bad_step)


class _Looks:
    """When the diagnostics of a run look: all that was recorded before is known by then, and the clock stands."""

    def __init__(
        self, diagnostics: Diagnostics, context: Context, plan: Plan, state: TrainState, series: MetricSeries
    ) -> None:
        self._diagnostics = diagnostics
        self._context = context
        self._plan = plan
        self._state = state
        self._series = series

    def take_at_batch(self, step: int, update: Update, views: tuple[Tensor, Tensor]) -> None:
        """At the batch of `step`."""

        def see() -> BatchSeen:
            self._settle()
            z_a_nd, z_b_nd = (self._context.all_gather_rows(rows) for rows in (update.z_a_nd, update.z_b_nd))
            return BatchSeen(step, self._plan.epoch(step), self._state.model, views, z_a_nd, z_b_nd, update.terms)

        with self._series.clock_stopped():
            self._diagnostics.observe_batch(step, see, self._series.last)

    def take(self, step: int, *, resumed: bool = False) -> bool:
        """At the network as `step` left it; False if a stop was asked for meanwhile."""
        if not self._diagnostics.network_due(step):
            return True
        self._settle()
        seen = NetworkSeen(step, self._plan.epoch(step), self._state.model)
        try:
            with self._series.clock_stopped():
                self._diagnostics.observe_network(seen, self._series.last, resumed=resumed)
        except Stopped:
            return False
        return True

    def _settle(self) -> None:
        self._series.flush()
        self._state.raise_if_diverged()


def _export(
    spec: PretrainSpec,
    context: Context,
    plan: Plan,
    state: TrainState,
    series: MetricSeries,
    dataset: Images,
    *,
    unreadable: int,
    last_words: list[str],
) -> Outcome:
    if skipped_steps := state.skipped_steps():
        said = f"{skipped_steps} of {plan.steps} steps moved nothing: the gradient did not fit fp16 at the scale it had"
        if skipped_steps == plan.steps:
            raise Diverged(f"{said}. Use bf16 or fp32, or more steps", plan.steps)
        context.warn(f"{said}. The scale starts high and is found within some 20 steps; bf16 needs none")
    context.progress("exporting", step=plan.steps, steps=plan.steps)
    backbone = state.model["backbone"]
    sha256 = backbone_digest({k: v.float() if v.is_floating_point() else v for k, v in backbone.state_dict().items()})
    result: dict[str, Any] = {
        "steps": plan.steps,
        "epochs": plan.epochs,
        "images_seen": plan.steps * spec.batch_size,
        "unreadable_images": unreadable,
        "skipped_steps": skipped_steps,
        "data": {
            "name": spec.data.name,
            "split": spec.data.split,
            "fingerprint": dataset.fingerprint,
            "images": len(dataset),
        },
        # The last step may be one that fp16 skipped, whose gradient has no norm; JSON has no word for that.
        "metrics": {name: value for name, value in series.last.items() if math.isfinite(value)},
        "backbone": {
            "sha256": sha256,
            "features": backbone.feature_width,
            "parameters": sum(p.numel() for p in backbone.parameters()),
        },
    }
    if context.journal is not None:
        context.working("exporting")
        details = {
            "spec_digest": digest(spec),
            "step": plan.steps,
            "epoch": plan.epochs,
            "data": spec.data.name,
            "split": spec.data.split,
            "fingerprint": dataset.fingerprint,
            "split_fingerprint": whole_of(dataset).fingerprint,
            "image_size": spec.views.size,
        }
        save_backbone(context.attempt_folder / BACKBONE, backbone, spec.backbone.architecture, details=details)
        context.journal.append("checkpoint", step=plan.steps, epoch=plan.epochs, checkpoint="backbone", path=BACKBONE)
    message = "; at the end ".join([f"trained for {plan.steps} steps", *last_words])
    return Outcome("ok", message, step=plan.steps, result=result, backbone=BACKBONE)
