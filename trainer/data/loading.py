"""Batches by (epoch, step), loaded by threads of the rank: decoders and Pillow release the GIL (DESIGN 7.12)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from trainer.data import views
from trainer.data.datasets import ImageDataSet
from trainer.data.errors import DataError
from trainer.data.keyed import Purpose, permutation
from trainer.data.pixels import empty_images
from trainer.data.pool import Job, ahead, pieces
from trainer.specs.views import ViewsSpec


@dataclass(slots=True)
class Batch:
    """One rank's rows of the global batch of one optimiser step."""

    step: int
    """The step this batch is for, counted from 1 over the whole run."""
    epoch: int
    """The epoch it belongs to, counted from 0."""
    indices: np.ndarray
    """(n,) int64, places in the data set."""
    view_a: Tensor
    """(n, 3, S, S) uint8, channels R, G, B."""
    view_b: Tensor
    """(n, 3, S, S) uint8; row for row the other view of the same images."""
    load_seconds: float
    """How long the consumer waited for it."""


class TrainingBatches:
    """The two views of every image, in an order keyed by (seed, epoch).

    The global batch of a step is a contiguous slice of the epoch's order, and each rank takes its contiguous share of
    it, so the images and views of a step are the same for any number of ranks and threads. The last partial batch
    of an epoch is dropped (DESIGN 7.5).
    """

    def __init__(
        self,
        dataset: ImageDataSet,
        views_spec: ViewsSpec,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        threads: int,
    ) -> None:
        """`batch_size` is global.

        Raises:
            DataError: the data set has fewer images than one batch.
            ValueError: the ranks do not divide the batch.
        """
        if len(dataset) < batch_size:
            raise DataError(
                f"batch_size {batch_size} is above the {len(dataset)} images of the data set: the last partial batch "
                f"is dropped, so there would be no step at all; use at most {len(dataset)}"
            )
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} is global and {world_size} ranks do not divide it")
        assert 0 <= rank < world_size, (rank, world_size)
        self.steps_per_epoch = len(dataset) // batch_size
        self._dataset = dataset
        self._views = views_spec
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._per_rank = batch_size // world_size
        self._threads = threads

    def iterate(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of steps first_step + 1 .. last_step: `first_step` steps are already done.

        Raises:
            DataError: an image could not be loaded; names its index.
        """
        waited_since = time.perf_counter()
        with closing(ahead(self._jobs(first_step, last_step), self._threads)) as batches:
            for batch in batches:
                batch.load_seconds = time.perf_counter() - waited_since
                yield batch
                waited_since = time.perf_counter()

    def _jobs(self, first_step: int, last_step: int) -> Iterator[Job[Batch]]:
        order, order_of = np.empty(0, dtype=np.int64), None
        for step in range(first_step + 1, last_step + 1):
            epoch, place = divmod(step - 1, self.steps_per_epoch)
            if order_of != epoch:
                order = permutation(Purpose.ORDER, self._seed, epoch, count=len(self._dataset))
                order_of = epoch
            start = place * self._batch_size + self._rank * self._per_rank
            yield self._job(step, epoch, order[start : start + self._per_rank])

    def _job(self, step: int, epoch: int, indices: np.ndarray) -> Job[Batch]:
        view_a, view_b = (empty_images(len(indices), self._views.size) for _ in range(2))
        rows_a, rows_b = view_a.numpy(), view_b.numpy()

        def load(row: int) -> None:
            index = int(indices[row])
            image = self._dataset.image(index)
            for view_id, (spec, rows) in enumerate(((self._views.a, rows_a), (self._views.b, rows_b))):
                drawn = views.sample(
                    spec,
                    seed=self._seed,
                    epoch=epoch,
                    index=index,
                    view_id=view_id,
                    height=image.shape[0],
                    width=image.shape[1],
                )
                rows[row] = views.apply(image, drawn, self._views.size)

        batch = Batch(step, epoch, indices, view_a, view_b, load_seconds=0.0)
        return Job(batch, pieces(load, indices, self._threads))
