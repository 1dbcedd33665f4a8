"""A training's checkpoints: begun in one way, and taken over in one way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from barlow_lab.specs import digest
from barlow_lab.specs.kinds.base import KindSpec
from trainer.data.errors import DataError
from trainer.failures import BadSpec
from trainer.runtime import checkpoints
from trainer.runtime.checkpoint_writer import CheckpointWriter
from trainer.runtime.compiling import Form
from trainer.runtime.context import Context
from trainer.runtime.data_facts import other_data
from trainer.training.step_plan import StepPlan


def begin_checkpoint(
    writer: CheckpointWriter,
    context: Context,
    plan: StepPlan,
    spec: KindSpec,
    state: Mapping[str, Any],
    *,
    step: int,
    metrics: Mapping[str, float],
    form: Form | None = None,
) -> None:
    """Hand `state`, as it is now, to the writer as the checkpoint of `step`; on rank 0.

    `metrics` are the newest values, of which the policy's score is one; `form` is that of the network, where there is a
    choice.
    """
    newest = dict(metrics)
    write = partial(
        checkpoints.write_checkpoint,
        context,
        step=step,
        epoch=plan.epoch(step),
        spec=spec.resolved(),
        spec_digest=digest(spec),
        policy=spec.run.checkpoint,
        milestone=plan.milestone(step),
        metrics=newest,
        form=form,
    )
    writer.begin({**state, "metrics": newest}, write)


def take_over(
    context: Context,
    folder: Path,
    *,
    data: str,
    fingerprint: str,
    form: Form | None = None,
    refused: Callable[[Mapping[str, Any]], str | None] = lambda saved: None,
) -> tuple[int, dict[str, Any]]:
    """The step of the checkpoint in `folder`, and its state; a warning where this attempt runs under other conditions.

    `data` is the name of the data set, whose fingerprint is `fingerprint`; `form` that of the network, where there is a
    choice; `refused` says why the protocol of this version does not go on from such a state.

    Raises:
        BadSpec: it is refused.
        DataError: the data set is not the one that the checkpoint was trained on.
    """
    context.progress("resuming")
    manifest = checkpoints.read_manifest(folder)
    here: dict[str, Any] = {
        "versions": checkpoints.versions(),
        "world_size": context.world_size,
        "threads": context.threads,
    }
    if form is not None:
        here |= {"compiled": form.compiled, "activation_budget": form.activation_budget}
    there = {name: getattr(manifest, name) for name in here}
    if here != there:
        context.warn("resumed under other conditions; the last bits may differ", before=there, now=here)
    saved = checkpoints.read_state(folder, context.device)
    if said := refused(saved):
        raise BadSpec(said)
    if saved.get("data", fingerprint) != fingerprint:
        raise DataError(other_data(context, data, folder))
    return manifest.step, saved
