"""An evaluation of invariance from its spec to its result.

Memory
------
Each rank holds the features of its share of the reference images in float32, then one byte a unit and image of its
share of a transformation's trajectories. Beside them a block of units of all ranks' images is looked at, at most
BLOCK_VALUES numbers (or one unit, where there are more images than that), and its copies.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barlow_lab.specs import InvarianceSpec
from barlow_lab.specs.kinds.invariance import units_fault
from trainer.data.datasets import ImageDataSet
from trainer.data.errors import DataError
from trainer.data.keyed import Purpose, permutation
from trainer.data.loading.trajectories import Trajectory, trajectories, trajectory_batches
from trainer.data.pixels import normalise
from trainer.data.registry import open_data_set
from trainer.evaluation.backbone import open_backbone
from trainer.evaluation.features import Features, extract, labels_on, tell_unreadable
from trainer.evaluation.invariance.firing import (
    Thresholds,
    class_scores,
    demystifying_thresholds,
    exchanged,
    formula_thresholds,
    joined,
    local_rates,
)
from trainer.evaluation.invariance.picture import draw_scores
from trainer.evaluation.splits import open_splits
from trainer.failures import BadSpec
from trainer.runtime import collectives
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.runtime.started import journal_started
from trainer.runtime.units import Stopped, Units, rounds, share

BLOCK_VALUES = 2**23
TOLD_CLASSES = 200
"""Classes above this number are not told one by one."""


def run_invariance(spec: InvarianceSpec, context: Context) -> dict[str, Any] | None:
    """Judge how invariant the backbone's units are; None if a stop was asked for. Metrics `invariance_ris` and
    `invariance_shuffled`, of each transformation `invariance_ris_crop` and so on, in percent, at step 0; a picture.

    Raises:
        BadSpec: the backbone cannot be used, or has fewer units than are to be taken.
        DataError: the data cannot be used.
    """
    journal_started(context, spec, resume_step=0)
    units = Units(context)
    try:
        return _judged(spec, context, units)
    except Stopped:
        return None


def _judged(spec: InvarianceSpec, context: Context, units: Units) -> dict[str, Any]:
    backbone = open_backbone(spec, context)
    splits = open_splits(spec, context, open_data_set, pretrained_on=backbone.pretrained_on)
    if splits.classes < 2:
        raise DataError(f"data set {spec.data.name!r} has one class: a unit knows a class by not firing for others")
    reference = extract(
        backbone.module, splits.train, spec.images, batch_size=spec.batch_size, phase="features reference",
        context=context, units=units,
    )  # fmt: skip
    width, images = reference.values.shape[1], reference.total
    if said := units_fault(spec.top_units, width):
        raise BadSpec(f"top_units: {said}")
    if images < splits.classes:
        raise DataError(f"{images:,} images of {splits.classes:,} classes: no unit would fire; raise data.limit")
    thresholds = thresholds_of(spec, reference, labels_on(context.device, splits.train), splits.classes, context, units)
    unreadable = reference.unreadable
    del reference  # its memory is that of the trajectories
    chosen = chosen_images(splits.test.labels(), spec.images_per_class, spec.seed)
    scores: dict[str, float] = {}
    of_classes: dict[str, list[float]] = {}
    judged = left_out = 0
    for number, (name, trajectory) in enumerate(trajectories(spec.transformations, spec.images, spec.steps).items()):
        phase = f"trajectories {name}"
        fired, indices, left_out = fired_along(
            backbone.module, splits.test, chosen, trajectory, thresholds, spec, phase, context, units, warned=not number
        )
        everyone = context.all_gather_rows(indices)
        labels, judged = labels_on(context.device, splits.test)[everyone], len(everyone)
        kept, shuffled = _local(fired, labels, splits.classes, spec, number, phase, context, units)
        there = torch.bincount(labels, minlength=splits.classes) > 0
        rate = spec.firing_rate(splits.classes)
        each, exchanged_each = (class_scores(one[there], thresholds, spec.top_units, rate) for one in (kept, shuffled))
        scores[f"ris_{name}"] = math.fsum(each.tolist()) / len(each)
        scores[f"shuffled_{name}"] = math.fsum(exchanged_each.tolist()) / len(each)
        classes = [splits.test.classes[place] for place in there.nonzero()[:, 0].tolist()]
        of_classes[name] = each.tolist()
    backbone.check_frozen()
    names = spec.transformations.names
    means = {
        score: math.fsum(scores[f"{score}_{name}"] for name in names) / len(names) for score in ("ris", "shuffled")
    }
    scores = {**means, **scores}
    if context.journal is not None:
        context.journal.metrics(0, 0, {f"invariance_{name}": value for name, value in scores.items()})
        file = "invariance-00000000.png"
        draw_scores(context.attempt_folder / file, names, scores, steps=spec.steps)
        context.journal.append("image", step=0, key="invariance", file=file)
    aimed = int(images * spec.firing_rate(splits.classes)) if thresholds.signs is not None else None
    told = {
        "firing_rate": float(spec.firing_rate(splits.classes)),
        "never": int((thresholds.fired == 0).sum()),
        "rarely": None if aimed is None else int((thresholds.fired < aimed).sum()),
        "negative": None if thresholds.signs is None else int((thresholds.signs < 0).sum()),
    }
    by_class = dict(zip(classes, zip(*of_classes.values(), strict=True), strict=True))
    return {
        "headline": "ris",
        "scores": {name: {"last": value, "best": value} for name, value in scores.items()},
        "procedure": spec.procedure,
        "top_units": spec.top_units,
        "units": told,
        "ris_of_classes": None if len(classes) > TOLD_CLASSES else {
            of: dict(zip(names, values, strict=True)) for of, values in by_class.items()
        },
        **splits.facts(
            train_images=images, test_images=judged, train_unreadable=unreadable, test_unreadable=left_out
        ),
        "backbone": {"source": backbone.source, "digest": backbone.digest, "features": width},
    }  # fmt: skip


def chosen_images(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Places of at most so many images of each class, drawn by the seed, ascending: labels (n,) int64."""
    order = permutation(Purpose.TRAJECTORIES, seed, count=len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    of = labels[grouped]
    place = np.arange(len(of)) - np.searchsorted(of, of)
    return np.sort(grouped[place < per_class])


def thresholds_of(
    spec: InvarianceSpec, reference: Features, labels: Tensor, classes: int, context: Context, units: Units
) -> Thresholds:
    """Thresholds of all units, from this rank's share of the reference images; the same on every rank."""
    phase, rate = "thresholds", spec.firing_rate(classes)
    of = labels[context.all_gather_rows(reference.indices)]
    width, found = reference.values.shape[1], []
    columns = max(1, BLOCK_VALUES // reference.total)
    for start in range(0, width, columns):
        block = context.all_gather_rows(reference.values[:, start : start + columns].contiguous())
        one_sign = spec.procedure == "formula"
        found.append(formula_thresholds(block, of, rate, classes) if one_sign else demystifying_thresholds(block, rate))
        units.progress(phase, step=start // columns + 1, steps=-(-width // columns))
        units.finished()
    return joined(found)


def fired_along(
    backbone: nn.Module,
    dataset: ImageDataSet,
    chosen: np.ndarray,
    trajectory: Trajectory,
    thresholds: Thresholds,
    spec: InvarianceSpec,
    phase: str,
    context: Context,
    units: Units,
    *,
    warned: bool,
) -> tuple[Tensor, Tensor, int]:
    """What fires along the trajectories of this rank's share of the chosen images, (n, steps, d) uint8; their places
    in the data set, (n,) int64; and how many images of all ranks could not be read.

    Raises:
        BadSpec: a feature is not finite; on every rank.
        NothingReadable: on every rank.
    """
    mine = share(len(chosen), context)
    rows = max(1, spec.batch_size // context.world_size // spec.steps)
    total = rounds(len(chosen), context, rows)
    loaded = trajectory_batches(
        dataset, chosen[mine.start : mine.stop], trajectory, spec.images, steps=spec.steps, rows=rows,
        threads=context.threads, tick=partial(context.working, phase, quiet_seconds=LOADING_SECONDS),
    )  # fmt: skip
    fired = torch.empty((len(mine), spec.steps, len(thresholds.above)), dtype=torch.uint8, device=context.device)
    indices: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    unreadable: list[str] = []
    finite = torch.ones((), dtype=torch.bool, device=context.device)
    filled = 0
    begun = time.monotonic()
    with closing(loaded) as batches, torch.no_grad():
        for done in range(1, total + 1):
            batch = next(batches, None)
            if batch is not None:
                unreadable += map(str, batch.unreadable)
                if count := len(batch.indices):
                    pixels = normalise(batch.images.flatten(0, 1).to(context.device), torch.float32)
                    values = backbone(pixels).float().unflatten(0, (count, spec.steps))
                    finite &= values.isfinite().all()
                    fired[filled : filled + count] = thresholds.fires(values)
                    indices.append(batch.indices)
                    filled += count
            images = min(done * rows * context.world_size, len(chosen))
            rate = images * spec.steps / max(time.monotonic() - begun, 1e-9)
            units.progress(phase, step=done, steps=total, images_per_second=rate)
            units.finished()
    if collectives.all_reduce_max_((~finite).long()):
        raise BadSpec(
            f"features are not finite ({phase}): the backbone has diverged; choose a checkpoint of an earlier step"
        )
    lost = int(collectives.all_reduce_(torch.tensor(len(unreadable), device=context.device)))
    if warned or lost == len(chosen):
        tell_unreadable(unreadable, lost, len(chosen), phase, context)
    return fired[:filled], torch.from_numpy(np.concatenate(indices)).to(context.device), lost


def _local(
    fired: Tensor,
    labels: Tensor,
    classes: int,
    spec: InvarianceSpec,
    number: int,
    phase: str,
    context: Context,
    units: Units,
) -> tuple[Tensor, Tensor]:
    """L of the trajectories of all ranks, and of the same ones exchanged, (classes, d) float64 each."""
    count, width = len(labels), fired.shape[2]
    orders = [permutation(Purpose.EXCHANGES, spec.seed, number, step, count=count) for step in range(spec.steps)]
    permutations = torch.from_numpy(np.stack(orders)).to(context.device)
    columns = max(1, BLOCK_VALUES // (count * spec.steps))
    rates = partial(local_rates, labels=labels, classes=classes, one_sign=spec.procedure == "formula")
    found = []
    for start in range(0, width, columns):
        block = context.all_gather_rows(fired[:, :, start : start + columns].contiguous())
        found.append((rates(block), rates(exchanged(block, permutations))))
        units.working(phase)
        units.finished()
    kept, shuffled = zip(*found, strict=True)
    return torch.cat(kept, dim=1), torch.cat(shuffled, dim=1)
