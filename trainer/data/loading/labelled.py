"""Labelled batches by (epoch, step) for training a classifier: one augmented view of each image, and its class.

Crop and flip are drawn as those of pretraining (trainer.data.views.augmentation), under a view id of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from barlow_lab.specs.augment import AugmentSpec
from barlow_lab.specs.views import ViewSpec
from trainer.data.datasets import ImageDataSet
from trainer.data.loading.order import global_batches
from trainer.data.loading.pool import Task, ahead, pieces
from trainer.data.loading.replacing import readable_from
from trainer.data.views.augmentation import Crop, sample

VIEW_ID = 2
"""0 and 1 are pretraining's two views."""


class ChosenImages:
    """Some images of another data set, in the order of `indices`."""

    def __init__(self, whole: ImageDataSet, indices: NDArray[np.int64]) -> None:
        self._whole = whole
        self._indices = indices
        self.classes = whole.classes
        chosen = hashlib.sha256(f"{whole.fingerprint} chosen".encode())
        chosen.update(indices.astype("<i8").data)
        self.fingerprint = chosen.hexdigest()

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int) -> NDArray[np.uint8]:
        return self._whole.image(int(self._indices[index]))

    def name(self, index: int) -> str:
        return self._whole.name(int(self._indices[index]))

    def label(self, index: int) -> int:
        return self._whole.label(int(self._indices[index]))

    def labels(self) -> NDArray[np.int64]:
        return self._whole.labels()[self._indices]


@dataclass(slots=True)
class LabelledBatch:
    """One rank's rows of the global batch of one step."""

    indices: NDArray[np.int64]
    """(n,) places in the data set of the images that are in it."""
    images: Tensor
    """(n, 3, S, S) uint8, channels R, G, B."""
    labels: Tensor
    """(n,) int64."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Images that could not be read, whose rows hold the next ones, with their labels: name → cause."""


class LabelledBatches:
    """The images of a data set with their labels, in an order keyed by (seed, epoch).

    The global batch of a step is a contiguous slice of the epoch's order, and each rank takes its contiguous share of
    it, so the images and views of a step are the same for any number of ranks and threads. The last partial batch of
    an epoch is dropped. An image that cannot be read is replaced by the next one that can, with that
    one's view and label.
    """

    def __init__(
        self,
        dataset: ImageDataSet,
        augment: AugmentSpec,
        *,
        size: int,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        threads: int,
        pinned: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """`size` is the side of a view in pixels; `batch_size` is global. The ranks divide it, and the data set has at
        least one batch.

        `pinned`: in page-locked memory, from which a GPU copies while the host goes on. `tick` is called for every
        image, by the thread that loaded it.
        """
        assert batch_size <= len(dataset), (batch_size, len(dataset))
        assert batch_size % world_size == 0, (batch_size, world_size)
        assert 0 <= rank < world_size, (rank, world_size)
        self.steps_per_epoch = len(dataset) // batch_size
        self.fingerprint = dataset.fingerprint
        self._dataset = dataset
        self._labels = dataset.labels()
        self._view = _view(augment)
        self._size = size
        self._batch_size = batch_size
        self._seed = seed
        share = batch_size // world_size
        self._share = slice(rank * share, (rank + 1) * share)
        self._threads = threads
        self._pinned = pinned
        self._tick = tick

    def iterate(self, first_step: int, last_step: int) -> Generator[LabelledBatch]:
        """The batches of steps first_step + 1 .. last_step: `first_step` steps are already done.

        Raises:
            DataError: an image could not be loaded; names its index.
            OSError: the disk does not give it.
        """
        with closing(ahead(self._tasks(first_step, last_step), self._threads)) as batches:
            for batch in batches:
                batch.labels.copy_(torch.from_numpy(self._labels[batch.indices]))
                yield batch

    def _tasks(self, first_step: int, last_step: int) -> Iterator[Task[LabelledBatch]]:
        batches = global_batches(len(self._dataset), self._batch_size, self._seed, first_step, last_step)
        for _, epoch, whole in batches:
            yield self._task(epoch, whole[self._share].copy())

    def _task(self, epoch: int, indices: NDArray[np.int64]) -> Task[LabelledBatch]:
        shape = (len(indices), 3, self._size, self._size)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        labels = torch.empty(len(indices), dtype=torch.int64, pin_memory=self._pinned)
        batch, pixels = LabelledBatch(indices, images, labels), images.numpy()

        def load(row: int) -> None:
            index, image = readable_from(self._dataset, int(indices[row]), batch.skipped)
            indices[row] = index
            height, width = image.shape[:2]
            drawn = sample(
                self._view, seed=self._seed, epoch=epoch, index=index, view_id=VIEW_ID, height=height, width=width
            )
            pixels[row] = cropped(image, drawn.crop, self._size, flip=drawn.flip)

        return Task(batch, pieces(load, indices, self._threads, self._tick))


def cropped(image: np.ndarray, crop: Crop, size: int, *, flip: bool) -> np.ndarray:
    """Crop and resize: image (H, W, 3) uint8 → (3, size, size) uint8.

    Pillow's bilinear filter, which weighs all pixels of the crop, as torchvision's RandomResizedCrop in evaluate.py of
    the reference implementation.
    """
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    view = Image.fromarray(image).crop(box).resize((size, size), Image.Resampling.BILINEAR)
    levels = np.asarray(view).transpose(2, 0, 1)
    return levels[:, :, ::-1] if flip else levels


def _view(augment: AugmentSpec) -> ViewSpec:
    """The view pipeline that does nothing but crop and flip."""
    none = {"probability": 0.0}
    return ViewSpec.model_validate(
        {**augment.model_dump(), "jitter": none, "grayscale": 0.0, "blur": none, "solarize": none}
    )
