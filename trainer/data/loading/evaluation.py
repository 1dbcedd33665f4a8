"""Images as an evaluation shows them: in order, unaugmented, over all ranks each of them once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from barlow_lab.specs.kinds.evaluation import EvaluationImages
from trainer.data.datasets import Images
from trainer.data.errors import UnreadableImage
from trainer.data.loading.pool import Task, ahead, pieces
from trainer.data.pixels import empty_images

LONGEST = 16
"""An image more than this many times as long as wide is cut to that about its centre before it is resized: the rest
never comes near the crop, and would take gigabytes where the image is a line."""


@dataclass(slots=True)
class EvaluationBatch:
    """Images as an evaluation shows them to a backbone; those that cannot be read are not among them."""

    indices: np.ndarray
    """(n,) int64, places in the data set, ascending."""
    images: Tensor
    """(n, 3, S, S) uint8, channels R, G, B."""
    unreadable: list[UnreadableImage]
    """Those that were left out, in the order of the data set."""


@dataclass(slots=True)
class _Loading:
    """A batch while threads fill it; `unreadable` by row."""

    indices: np.ndarray
    images: Tensor
    unreadable: dict[int, UnreadableImage] = field(default_factory=dict)

    def load(self, dataset: Images, images: EvaluationImages, row: int) -> None:
        try:
            image = dataset.image(int(self.indices[row]))
        except UnreadableImage as error:
            self.unreadable[row] = error
        else:
            self.images.numpy()[row] = centre_crop(image, images)

    def readable(self) -> EvaluationBatch:
        """What could be read."""
        if not self.unreadable:
            return EvaluationBatch(self.indices, self.images, [])
        rows = np.array([row for row in range(len(self.indices)) if row not in self.unreadable], dtype=np.int64)
        left_out = [self.unreadable[row] for row in sorted(self.unreadable)]
        return EvaluationBatch(self.indices[rows], self.images[torch.from_numpy(rows)], left_out)


def evaluation_batches(
    dataset: Images,
    images: EvaluationImages,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    threads: int,
    tick: Callable[[], None] = lambda: None,
) -> Generator[EvaluationBatch]:
    """This rank's share of the data set in order: over all ranks every image exactly once, either among
    a batch's images or among its unreadable ones.

    `batch_size` is global; the last batch is as small as it comes, and a rank has none where ranks outnumber images.
    `tick` is called for every image, by the thread that loaded it.

    Raises:
        DataError: an image could not be loaded for another reason than that it is unreadable; names its index.
        OSError: the disk does not give it.
    """
    assert 0 <= rank < world_size, (rank, world_size)
    share = np.arange(len(dataset) * rank // world_size, len(dataset) * (rank + 1) // world_size)
    per_rank = -(-batch_size // world_size)

    def tasks() -> Iterator[Task[_Loading]]:
        for start in range(0, len(share), per_rank):
            indices = share[start : start + per_rank]
            loading = _Loading(indices, empty_images(len(indices), images.size))
            yield Task(loading, pieces(partial(loading.load, dataset, images), indices, threads, tick))

    with closing(ahead(tasks(), threads)) as loaded:
        for loading in loaded:
            yield loading.readable()


def centre_crop(image: np.ndarray, images: EvaluationImages) -> np.ndarray:
    """The resized image's centre: image (H, W, 3) uint8 → (3, size, size) uint8.

    The short side becomes `images.resized` (bilinear), or both sides where `resize_to` is a square (Zbontar et al.
    2021, B.1). Rounds as torchvision's Resize and CenterCrop do.
    """
    if images.resize_to == "square":
        height = width = images.resized
    else:
        image = _not_too_long(image)
        height, width = image.shape[:2]
        short = images.resized
        if width <= height:
            width, height = short, int(short * height / width)
        else:
            width, height = int(short * width / height), short
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - images.size) / 2), round((width - images.size) / 2)
    cropped = resized.crop((left, top, left + images.size, top + images.size))
    return np.asarray(cropped).transpose(2, 0, 1)


def shown_part(image: np.ndarray, images: EvaluationImages) -> np.ndarray:
    """The part of an image (H, W, 3) that `centre_crop` shows, in the image's own pixels, to one of them."""
    if images.resize_to == "square":
        height, width = image.shape[:2]
    else:
        height = width = min(image.shape[:2])
    height, width = (max(1, round(side * images.size / images.resized)) for side in (height, width))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _not_too_long(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    longest = LONGEST * min(height, width)
    top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
    return image[top : top + longest, left : left + longest]
