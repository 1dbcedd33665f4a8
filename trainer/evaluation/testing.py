"""The test of a classifier on images: every image of the split once over all ranks, after every epoch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from barlow_lab.specs.kinds.evaluation import EvaluationImages
from trainer.data.datasets import ImageDataSet
from trainer.data.loading.evaluation import evaluation_batches
from trainer.evaluation.extremes import Extremes
from trainer.evaluation.features import GUESSED, labels_on, tell_unreadable
from trainer.evaluation.lost_classes import tell_of_lost_classes
from trainer.evaluation.scoring import scores_of, true_class_places
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.runtime.units import Units, rounds

PHASE = "testing"


@dataclass(frozen=True, slots=True)
class Tested:
    """What a test has found over all ranks: `scores` by name, in percent, of so many `images`."""

    scores: dict[str, float]
    images: int
    unreadable: int


def tested(
    classify: Callable[[Tensor], Tensor],
    dataset: ImageDataSet,
    images: EvaluationImages,
    *,
    batch_size: int,
    context: Context,
    units: Units,
    warn: bool,
) -> Tested:
    """How `classify`, images (n, 3, S, S) uint8 on the device → (n, classes), does on a whole split. Every rank calls
    it; `batch_size` is global. Images that cannot be read are left out; with `warn` there is a warning of them, and one
    if all images get the same scores.

    Raises:
        DataError: no image can be read, or one cannot be loaded for another reason.
        Stopped: a stop was asked for.
    """
    truth = labels_on(context.device, dataset)
    places, read = [truth.new_empty(0)], [truth.new_empty(0)]
    extremes = Extremes()
    unreadable: list[str] = []
    loaded = evaluation_batches(
        dataset,
        images,
        batch_size=batch_size,
        rank=context.rank,
        world_size=context.world_size,
        threads=context.threads,
        tick=partial(context.working, PHASE, quiet_seconds=LOADING_SECONDS),
    )
    per_rank = -(-batch_size // context.world_size)
    with closing(loaded) as batches, torch.no_grad():
        for to_go in reversed(range(rounds(len(dataset), context, per_rank))):
            batch = next(batches, None)
            if batch is not None:
                unreadable += map(str, batch.unreadable)
                if len(batch.indices):
                    scores = classify(batch.images.to(context.device))
                    indices = torch.from_numpy(batch.indices).to(context.device)
                    read.append(indices)
                    places.append(true_class_places(scores, truth[indices]))
                    extremes.take(scores)
            units.working(PHASE)
            if to_go:  # after the last one nothing would be won
                units.finished()
    everyone = context.all_gather_rows(torch.cat(places))
    left_out = len(dataset) - len(everyone)
    if warn or not len(everyone):
        tell_unreadable(unreadable, left_out, len(dataset), PHASE, context)
    if warn and left_out:
        tell_of_lost_classes(dataset, torch.cat(read), PHASE, context)
    if warn and extremes.all_the_same(context.device):
        which = f"all {len(everyone):,} test images get the same scores"
        context.warn(f"{which}, so the result is that of a guess: {GUESSED}", nothing_learned="features")
    return Tested(scores_of(everyone, len(dataset.classes)), len(everyone), left_out)
