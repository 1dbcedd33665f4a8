"""Features of a whole split: one row per image, each computed by one rank, in the order of the data set."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from barlow_lab.specs.kinds.evaluation import EvaluationImages
from trainer.data.datasets import ImageDataSet, Images
from trainer.data.errors import NothingReadable
from trainer.data.loading.evaluation import evaluation_batches
from trainer.data.pixels import normalise
from trainer.evaluation.extremes import Extremes
from trainer.evaluation.lost_classes import tell_of_lost_classes
from trainer.failures import BadSpec
from trainer.runtime import collectives
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.runtime.units import Units, rounds, share

GUESSED = "the images hold nothing (docs/data-sets.md, When images are black), or the backbone has collapsed"
NAMED = 20
"""Unreadable images that a warning names."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one split: of this rank's share of it, or of all of it on every rank (`gathered`)."""

    values: Tensor
    """(n, d) float32 on the rank's device; a row for each image that could be read."""
    indices: Tensor
    """(n,) int64 on the rank's device: the image of each row by its place in the data set, ascending."""
    total: int
    """Rows of all shares together."""
    unreadable: int = 0
    """Images of the split that have no row."""

    def __len__(self) -> int:
        return len(self.indices)

    def gathered(self, phase: str, context: Context) -> Features:
        """The shares of all ranks, in order; every rank calls it. Takes the memory of the whole split."""
        context.working(f"{phase}, gathering")
        values = context.all_gather_rows(self.values)
        context.working(f"{phase}, gathering")
        return Features(values, context.all_gather_rows(self.indices), self.total, self.unreadable)


def labels_on(device: torch.device, dataset: ImageDataSet) -> Tensor:
    """All labels of a split, (n,) int64 on the device: the row for an image is its place in the data set."""
    return torch.from_numpy(dataset.labels()).to(device)


def extract(
    backbone: Callable[[Tensor], Tensor],
    dataset: Images,
    images: EvaluationImages,
    *,
    batch_size: int,
    phase: str,
    context: Context,
    units: Units,
    dtype: torch.dtype = torch.float32,
    warned: bool = True,
) -> Features:
    """Features of this rank's share of `dataset`; over all ranks every image counts once. Images that
    cannot be read are left out, with a warning, and there is one where the features of all images are the same; without
    `warned` there is none.

    `batch_size` is global, `dtype` the backbone's. With a backbone in evaluation mode a row depends on its image alone,
    so batches and ranks change it by rounding at most. Takes the memory of the share and of one batch.

    Raises:
        BadSpec: a feature is not finite; names the image. On every rank.
        NothingReadable: on every rank.
        DataError: an image cannot be loaded for another reason; perhaps on one rank alone, so it has to end the job.
        Stopped: a stop was asked for.
    """
    mine = share(len(dataset), context)
    total = rounds(len(dataset), context, -(-batch_size // context.world_size))
    loaded = evaluation_batches(
        dataset,
        images,
        batch_size=batch_size,
        rank=context.rank,
        world_size=context.world_size,
        threads=context.threads,
        tick=partial(context.working, phase, quiet_seconds=LOADING_SECONDS),
    )
    rows = _Rows(len(mine), context.device)
    extremes = Extremes()
    unreadable: list[str] = []
    begun = time.monotonic()
    with closing(loaded) as batches, torch.no_grad():
        for done in range(1, total + 1):
            batch = next(batches, None)
            if batch is not None:
                unreadable += map(str, batch.unreadable)
                if len(batch.indices):
                    values = backbone(normalise(batch.images.to(context.device), dtype)).float()
                    rows.take(values, torch.from_numpy(batch.indices))
                    extremes.take(values)
            images_done = min(done * batch_size, len(dataset))
            per_second = images_done / max(time.monotonic() - begun, 1e-9)
            units.progress(phase, step=done, steps=total, images_per_second=per_second)
            units.finished()
    found = rows.features(unreadable, len(dataset), phase, context, warned)
    if found.unreadable and warned:
        tell_of_lost_classes(dataset, found.indices, phase, context)
    first_bad = context.all_gather_rows(found.indices[~rows.finite[: len(found)]][:1])
    if len(first_bad):
        raise BadSpec(
            f"the features of image {int(first_bad.min())} ({phase}) are not finite: "
            "the backbone has diverged; choose a checkpoint of an earlier step"
        )
    if warned and extremes.all_the_same(context.device):
        which = f"the features of all {found.total:,} images are the same ({phase})"
        context.warn(f"{which}, so the score is that of a guess: {GUESSED}", nothing_learned="features")
    return found


class _Rows:
    """Rows of a share as they come, in the memory that they will have."""

    def __init__(self, most: int, device: torch.device) -> None:
        self._most = most
        self._filled = 0
        self._values: Tensor | None = None
        self._indices = torch.empty(most, dtype=torch.int64, device=device)
        self.finite = torch.empty(most, dtype=torch.bool, device=device)

    def take(self, values: Tensor, indices: Tensor) -> None:
        assert values.ndim == 2, f"features are one row per image, not {tuple(values.shape)}"
        if self._values is None:
            self._values = values.new_empty((self._most, values.shape[1]))
        place = slice(self._filled, self._filled + len(values))
        self._values[place] = values
        self._indices[place] = indices.to(self._indices.device)
        self.finite[place] = values.isfinite().all(dim=1)  # not looked at here: the host would wait
        self._filled = place.stop

    def features(self, unreadable: list[str], count: int, phase: str, context: Context, warned: bool) -> Features:
        """What was taken, of a data set of `count` images; `unreadable` says what is wrong with the others.

        Raises:
            NothingReadable: on every rank, if no rank has a row.
        """
        width = 0 if self._values is None else self._values.shape[1]
        numbers = torch.tensor([self._filled, len(unreadable)], device=context.device)
        total, left_out = (int(v) for v in collectives.all_reduce_(numbers).tolist())
        # A rank without a row has to know how wide one would be.
        widest = int(collectives.all_reduce_max_(torch.tensor(width, device=context.device)))
        values = self._values if self._values is not None else torch.empty((self._most, widest), device=context.device)
        indices = self._indices[: self._filled]
        assert total + left_out == count, "every image has a row or is left out"
        assert (indices[1:] > indices[:-1]).all(), "no image twice, in order"
        if warned or left_out == count:
            tell_unreadable(unreadable, left_out, count, phase, context)
        return Features(values[: self._filled], indices, total, left_out)


def tell_unreadable(unreadable: list[str], left_out: int, count: int, phase: str, context: Context) -> None:
    """Warn of the images that could not be read: `unreadable` on this rank, `left_out` of `count` on all of them.

    Raises:
        NothingReadable: none could.
    """
    first = collectives.all_gather_texts(unreadable[:NAMED], context.device)[:NAMED]
    if left_out == count:
        raise NothingReadable(f"none of the {count:,} images can be read ({phase}); the first: {first[0]}")
    if left_out:
        context.warn(
            f"{left_out:,} of {count:,} images cannot be read and are left out ({phase}); the first: {first[0]}",
            unreadable=left_out,
            images=first,
        )
