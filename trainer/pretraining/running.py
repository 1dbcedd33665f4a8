"""A pretraining from its spec to its outcome."""

from __future__ import annotations

from functools import partial

from barlow_lab.outcome import Outcome
from barlow_lab.specs import PretrainSpec
from barlow_lab.specs.data_sets import DataSource, without_labels
from trainer.data.datasets import Images
from trainer.data.errors import DataError
from trainer.data.folder_names import folders_left
from trainer.data.loading.training import TrainingBatches
from trainer.data.registry import open_images
from trainer.data.views.picture import PICTURE_IMAGES, write_views_picture
from trainer.diagnostics.base import Diagnosed
from trainer.diagnostics.listed import Diagnostics
from trainer.failures import BadSpec
from trainer.optim.schedules import schedule_of
from trainer.pretraining.exporting import export
from trainer.pretraining.fit import Pretraining
from trainer.pretraining.image_pass import ImagePass
from trainer.runtime import collectives
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.runtime.data_facts import journal_data
from trainer.runtime.data_warnings import warn_of_data
from trainer.train_state import TrainState
from trainer.training.loop import train
from trainer.training.step_plan import StepPlan


def pretrain(spec: PretrainSpec, context: Context) -> Outcome:
    """Pretrain a backbone, from the newest valid checkpoint of the run if there is one.

    Raises:
        BadSpec, DataError, Diverged: what the run ends with; anything else is a crash.
    """
    dataset, batches = _open_batches(spec, context)
    per_epoch = batches.steps_per_epoch
    steps = min(spec.epochs * per_epoch, spec.max_steps or spec.epochs * per_epoch)
    plan = StepPlan(steps, per_epoch, spec)

    context.progress("building")
    schedule = schedule_of(spec, steps_per_epoch=per_epoch, total_steps=steps)
    state = TrainState(spec, schedule, context.device)
    if spec.embedding_width() is None:
        _judge(spec, len(dataset), state.features)
    diagnostics = Diagnostics(Diagnosed(spec, plan, state.model, state.objective, dataset, context))
    journal_data(context, spec.data.name, _source(spec, context), {"train": dataset, **diagnostics.looked_at})
    image_pass = ImagePass(spec, plan, state, dataset, context)
    fit = Pretraining(
        spec,
        plan,
        context,
        state=state,
        batches=batches,
        schedule=schedule,
        image_pass=image_pass,
        diagnostics=diagnostics,
    )
    if not train(fit):
        reason, step = context.stop.reason, context.step
        return Outcome("stopped", f"stopped at step {step}: {reason}", step=step, reason=reason)
    return export(fit, spec, dataset)


def _open_batches(spec: PretrainSpec, context: Context) -> tuple[Images, TrainingBatches]:
    # By hand there may be other ranks than the spec has slots, by which it was judged.
    if said := spec.batches_fault(context.world_size):
        raise BadSpec(said)
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
