"""Images as an evaluation shows them: in order, unaugmented, over all ranks each of them once (DESIGN 7.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image
from torch import Tensor

from trainer.data.datasets import ImageDataSet
from trainer.data.pixels import empty_images
from trainer.data.pool import Job, ahead, pieces
from trainer.specs.evaluation import EvaluationImages


@dataclass(slots=True)
class EvaluationBatch:
    """Images as an evaluation shows them to a backbone."""

    indices: np.ndarray
    """(n,) int64, places in the data set."""
    images: Tensor
    """(n, 3, S, S) uint8, channels R, G, B."""
    labels: np.ndarray
    """(n,) int64."""


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
            loaded = empty_images(len(indices), images.size)
            load = partial(_load_for_evaluation, dataset, images, indices, loaded.numpy())
            yield Job(EvaluationBatch(indices, loaded, labels[indices]), pieces(load, indices, threads))

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
