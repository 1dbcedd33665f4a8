"""Features of a whole split: one row per image, in the order of the data set, the same for any number of ranks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trainer.data.datasets import ImageDataSet
from trainer.data.errors import DataError
from trainer.data.evaluation_loading import evaluation_batches
from trainer.data.pixels import normalise
from trainer.evaluation.units import Units, rounds
from trainer.outcome import BadSpec
from trainer.runtime import collectives
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.specs.evaluation import EvaluationImages

NAMED = 20
"""Unreadable images that a warning names."""


@dataclass(frozen=True, slots=True)
class Features:
    """Labelled features of one split, whole on every rank."""

    values: Tensor
    """(n, d) float32 on the rank's device; a row for each image that could be read."""
    labels: Tensor
    """(n,) int64 on the rank's device; row for row."""
    unreadable: int = 0
    """Images of the split that have no row."""

    def __len__(self) -> int:
        return len(self.labels)


def extract(
    backbone: nn.Module,
    dataset: ImageDataSet,
    images: EvaluationImages,
    *,
    batch_size: int,
    phase: str,
    context: Context,
    units: Units,
) -> Features:
    """Features of every image of `dataset`, each computed by one rank and counted once (DESIGN 7.5). Images that cannot
    be read are left out, with a warning.

    `batch_size` is global. With a backbone in evaluation mode a row depends on its image alone, so batches and ranks
    change it by rounding at most.

    Raises:
        BadSpec: a feature is not finite; names the image.
        DataError: no image can be read, or one cannot be loaded for another reason.
        Stopped: a stop was asked for.
    """
    total = rounds(len(dataset), context, -(-batch_size // context.world_size))
    batches = evaluation_batches(
        dataset,
        images,
        batch_size=batch_size,
        rank=context.rank,
        world_size=context.world_size,
        threads=context.threads,
        tick=partial(context.working, phase, quiet_seconds=LOADING_SECONDS),
    )
    rows: list[Tensor] = []
    indices: list[Tensor] = []
    unreadable: list[str] = []
    begun = time.monotonic()
    for done in range(1, total + 1):
        batch = next(batches, None)
        if batch is not None:
            unreadable += map(str, batch.unreadable)
        if batch is not None and len(batch.indices):
            with torch.no_grad():
                rows.append(backbone(normalise(batch.images.to(context.device), torch.float32)).float())
            assert rows[-1].ndim == 2, f"features are one row per image, not {tuple(rows[-1].shape)}"
            indices.append(torch.from_numpy(batch.indices).to(context.device))
        images_done = min(done * batch_size, len(dataset))
        context.progress(
            phase, step=done, steps=total, images_per_second=images_done / max(time.monotonic() - begun, 1e-9)
        )
        units.finished()
    context.working(f"{phase}, gathering")
    width = collectives.all_reduce_max_(torch.tensor(rows[0].shape[1] if rows else 0, device=context.device))
    none = torch.empty((0, int(width)), device=context.device)
    values = context.all_gather_rows(torch.cat([none, *rows]))
    context.working(f"{phase}, gathering")
    order = context.all_gather_rows(torch.cat([torch.empty(0, dtype=torch.int64, device=context.device), *indices]))
    left_out = _left_out(order, unreadable, len(dataset), phase, context)
    finite = values.isfinite().all(dim=1)
    if not finite.all():
        raise BadSpec(
            f"the features of image {int(order[~finite][0])} ({phase}) are not finite: "
            "the backbone has diverged; choose a checkpoint of an earlier step"
        )
    return Features(values, torch.from_numpy(dataset.labels()).to(context.device)[order], left_out)


def _left_out(order: Tensor, unreadable: list[str], count: int, phase: str, context: Context) -> int:
    """How many of `count` images have no row, with a warning; `order` holds the images of all rows, `unreadable` what
    is wrong with this rank's own ones.

    Raises:
        DataError: none has a row.
    """
    left_out = int(collectives.all_reduce_(torch.tensor(len(unreadable), device=context.device)))
    assert len(order) + left_out == count, "every image has a row or is left out"
    assert (order[1:] > order[:-1]).all(), "no image twice, in order"
    first = collectives.all_gather_texts(unreadable[:NAMED], context.device)[:NAMED]
    if left_out == count:
        raise DataError(f"none of the {count:,} images can be read ({phase}); the first: {first[0]}")
    if left_out:
        context.warn(
            f"{left_out:,} of {count:,} images cannot be read and are left out ({phase}); the first: {first[0]}",
            unreadable=left_out,
            images=first,
        )
    return left_out
