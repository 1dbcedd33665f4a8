"""Batches by (epoch, step)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from barlow_lab.specs.views import ViewsSpec
from trainer.data.batch import Batch
from trainer.data.datasets import Images
from trainer.data.errors import DataError
from trainer.data.loading.order import global_batches, order_of
from trainer.data.loading.pairs import PairLoading
from trainer.data.loading.pool import Task, ahead


class TrainingBatches:
    """The two views of every image, in an order keyed by (seed, epoch).

    The global batch of a step is a contiguous slice of the epoch's order. It is cut into pieces of `micro_batch`
    images, and each rank takes its contiguous share of every piece, so the images and views of a step, and of each
    piece of it, are the same for any number of ranks and threads. The last partial batch of an epoch is
    dropped. An image that cannot be read is replaced by the next one of the data set that can, with the views that are
    that one's in this epoch: the same again for any ranks, threads and restarts.
    """

    def __init__(
        self,
        dataset: Images,
        views_spec: ViewsSpec,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        threads: int,
        micro_batch: int | None = None,
        pinned: bool = False,
        whole: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """`batch_size` and `micro_batch` are global; without the latter there is one piece.

        `pinned`: in page-locked memory, from which a GPU copies while the host goes on. `whole`: nothing is left for
        `finish` to do, the threads here do it all; for a step on the same cores, of which it would use one.
        `tick` is called for every image, by the thread that loaded it.

        Raises:
            DataError: the data set has fewer images than one batch.
            ValueError: the ranks do not divide the pieces, or the pieces the batch.
        """
        if len(dataset) < batch_size:
            raise DataError(
                f"batch_size {batch_size} is above the {len(dataset)} images of the data set: the last partial batch "
                f"is dropped, so there would be no step at all; use at most {len(dataset)}"
            )
        if batch_size % (micro_batch or batch_size):
            raise ValueError(f"micro_batch {micro_batch} does not divide the batch of {batch_size}")
        if (micro_batch or batch_size) % world_size:
            name = "micro_batch" if micro_batch else "batch_size"
            raise ValueError(f"{name} {micro_batch or batch_size} is global and {world_size} ranks do not divide it")
        assert 0 <= rank < world_size, (rank, world_size)
        self.steps_per_epoch = len(dataset) // batch_size
        self.fingerprint = dataset.fingerprint
        self._dataset = dataset
        self._pairs = PairLoading(
            dataset, views_spec, seed=seed, threads=threads, pinned=pinned, whole=whole, tick=tick
        )
        self._batch_size = batch_size
        self._micro_batch = micro_batch or batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._threads = threads

    def iterate(self, first_step: int, last_step: int) -> Generator[Batch]:
        """The batches of steps first_step + 1 .. last_step: `first_step` steps are already done.

        Raises:
            DataError: an image could not be loaded; names its index.
            OSError: the disk does not give it.
        """
        waited_since = time.perf_counter()
        with closing(ahead(self._tasks(first_step, last_step), self._threads)) as batches:
            for batch in batches:
                batch.skipped = dict(sorted(batch.skipped.items()))
                batch.load_seconds = time.perf_counter() - waited_since
                yield batch
                waited_since = time.perf_counter()

    def first_rows(self, count: int) -> Batch:
        """The first `count` rows of the run's first global batch, to look at.

        Raises:
            DataError: an image could not be loaded; names its index.
            OSError: the disk does not give it.
        """
        first = order_of(self._seed, 0, len(self._dataset))
        task = self._pairs.task(1, 0, first[: min(count, self._batch_size)].copy())
        for piece in task.pieces:
            piece(threading.Event())
        return task.result

    def _tasks(self, first_step: int, last_step: int) -> Iterator[Task[Batch]]:
        batches = global_batches(len(self._dataset), self._batch_size, self._seed, first_step, last_step)
        for step, epoch, whole in batches:
            shares = whole.reshape(-1, self._world_size, self._micro_batch // self._world_size)
            yield self._pairs.task(step, epoch, shares[:, self._rank].flatten())
