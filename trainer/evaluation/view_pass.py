"""A pass over two views of each of some images: the moments of their features, block by block.

Which images, and their views, are drawn by keys of their own: the same at each pass, on any ranks, and none that
training sees. So two passes over one data set differ by their networks alone.

Shape suffixes: n images of this rank, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial

import numpy as np
import torch
from torch import Tensor

from barlow_lab.specs.views import ViewsSpec
from trainer.data.datasets import Images
from trainer.data.keyed import Purpose, permutation
from trainer.data.loading.pairs import PairLoading
from trainer.data.loading.pool import ahead
from trainer.data.pixels import normalise
from trainer.data.views.photometry import finish
from trainer.evaluation.view_moments import ViewMoments
from trainer.failures import BadSpec
from trainer.runtime import collectives
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.runtime.units import Units

BLOCKS = 16
"""Equal parts of the images, by whose scatter the error of an estimate is stated."""


def drawn_images(count: int, images: int, *, seed: int, part: int = 0) -> np.ndarray:
    """Places of so many `images` of a data set of `count`, all where there are no more, in the order drawn: a part of
    them is as good as any other, whatever the order of the files. `part` tells draws of one seed apart."""
    return permutation(Purpose.SAMPLE, seed, part, count=count)[:images]


def stream_views(
    embed: Callable[[Tensor], Tensor],
    dataset: Images,
    views: ViewsSpec,
    places: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    phase: str,
    context: Context,
    units: Units,
    dtype: torch.dtype = torch.float32,
    part: int = 0,
    autos: bool = False,
) -> Generator[ViewMoments]:
    """The moments of each of BLOCKS blocks of the images at `places`, in their order, over all ranks; the next one is
    begun when the caller asks for it. Every rank takes all of them.

    `embed` takes pixels in `dtype`; `batch_size` is global. An image that cannot be read is replaced as in training.

    Raises:
        BadSpec: a feature is not finite; on every rank.
        DataError: an image cannot be loaded, though it can be read.
        Stopped: a stop was asked for.
    """
    loading = PairLoading(
        dataset,
        views,
        seed=seed,
        threads=context.threads,
        purpose=Purpose.SAMPLE_VIEW,
        pinned=context.device.type == "cuda",
        whole=context.device.type == "cpu",
        tick=partial(context.working, phase, quiet_seconds=LOADING_SECONDS),
    )
    blocks = [
        [np.array_split(piece, context.world_size)[context.rank] for piece in _pieces(block, batch_size)]
        for block in np.array_split(places, BLOCKS)
    ]
    tasks = (loading.task(1, part, mine.copy()) for block in blocks for mine in block if len(mine))
    done, steps = 0, sum(map(len, blocks))
    with closing(ahead(tasks, context.threads)) as batches:
        for block in blocks:
            moments: ViewMoments | None = None
            for mine in block:
                if len(mine):
                    pair = finish(next(batches), context.device)
                    with torch.no_grad():  # not around what the caller does between blocks
                        a_nd, b_nd = (embed(normalise(view, dtype)) for view in pair)
                    moments = moments or ViewMoments(a_nd.shape[1], context.device, autos=autos)
                    moments.take(a_nd, b_nd)
                done += 1
                units.progress(phase, step=done, steps=steps)
                units.finished()
            yield _of_all_ranks(moments, context, autos=autos)


def _pieces(block: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [block[start : start + batch_size] for start in range(0, len(block), batch_size)]


def _of_all_ranks(moments: ViewMoments | None, context: Context, *, autos: bool) -> ViewMoments:
    # A rank without an image has to know how many features there are.
    mine = 0 if moments is None else moments.features
    features = int(collectives.all_reduce_max_(torch.tensor(mine, device=context.device)))
    found = (moments or ViewMoments(features, context.device, autos=autos)).over_ranks_()
    if not found.squares_2d.isfinite().all():
        raise BadSpec("features are not finite: the network has diverged; choose a checkpoint of an earlier step")
    return found
