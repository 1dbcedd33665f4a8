"""Batches by (epoch, step), loaded by threads of the rank: decoders and Pillow release the GIL (DESIGN 7.12)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.data import views
from trainer.data.datasets import ImageDataSet
from trainer.data.errors import DataError
from trainer.data.keyed import Purpose, permutation
from trainer.data.pool import Job, ahead
from trainer.specs.evaluation import EvaluationImages
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


@dataclass(slots=True)
class EvaluationBatch:
    """Images as an evaluation shows them to a backbone."""

    indices: np.ndarray
    """(n,) int64, places in the data set."""
    images: Tensor
    """(n, 3, S, S) uint8, channels R, G, B."""
    labels: np.ndarray
    """(n,) int64."""


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
        view_a, view_b = (_empty_images(len(indices), self._views.size) for _ in range(2))
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
        return Job(batch, _pieces(load, indices, self._threads))


def evaluation_batches(
    dataset: ImageDataSet,
    images: EvaluationImages,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    threads: int,
) -> Iterator[EvaluationBatch]:
    """This rank's share of the data set in order: over all ranks every image exactly once (DESIGN 7.5).

    `batch_size` is global; the last batch is as small as it comes, and a rank has none where ranks outnumber images.

    Raises:
        DataError: an image could not be loaded; names its index.
    """
    assert 0 <= rank < world_size, (rank, world_size)
    share = np.arange(len(dataset) * rank // world_size, len(dataset) * (rank + 1) // world_size)
    labels = dataset.labels()
    per_rank = -(-batch_size // world_size)

    def jobs() -> Iterator[Job[EvaluationBatch]]:
        for start in range(0, len(share), per_rank):
            indices = share[start : start + per_rank]
            loaded = _empty_images(len(indices), images.size)
            load = partial(_load_for_evaluation, dataset, images, indices, loaded.numpy())
            yield Job(EvaluationBatch(indices, loaded, labels[indices]), _pieces(load, indices, threads))

    return ahead(jobs(), threads)


def centre_crop(image: np.ndarray, images: EvaluationImages) -> np.ndarray:
    """Short side to `images.short_side` (bilinear), centre crop: image (H, W, 3) uint8 → (3, size, size) uint8.

    Rounds as torchvision's Resize and CenterCrop do (document 000, B.1).
    """
    height, width = image.shape[:2]
    short = images.short_side
    if width <= height:
        width, height = short, int(short * height / width)
    else:
        width, height = int(short * width / height), short
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - images.size) / 2), round((width - images.size) / 2)
    cropped = resized.crop((left, top, left + images.size, top + images.size))
    return np.asarray(cropped).transpose(2, 0, 1)


def _load_for_evaluation(
    dataset: ImageDataSet, images: EvaluationImages, indices: np.ndarray, rows: np.ndarray, row: int
) -> None:
    rows[row] = centre_crop(dataset.image(int(indices[row])), images)


def _empty_images(count: int, size: int) -> Tensor:
    return torch.empty((count, 3, size, size), dtype=torch.uint8)


def _pieces(load: Callable[[int], None], indices: np.ndarray, threads: int) -> list[Callable[[], None]]:
    """The rows of a batch in one contiguous piece per thread: fewer hand-overs than one piece per image."""

    def piece(rows: np.ndarray) -> None:
        for row in rows.tolist():
            try:
                load(row)
            except Exception as error:
                raise DataError(f"image {indices[row]} cannot be loaded: {error}") from error

    shares = np.array_split(np.arange(len(indices)), min(threads, len(indices)))
    return [partial(piece, rows) for rows in shares]
