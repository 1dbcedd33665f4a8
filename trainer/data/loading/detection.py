"""Images with objects, for training and for the test of a detector, loaded by threads of the rank."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.data.datasets import AnnotatedDataSet, Annotation, BoxCounts
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.ignored import told_of
from trainer.data.keyed import Purpose, uniforms
from trainer.data.loading.order import global_batches
from trainer.data.loading.packed_masks import PackedMasks
from trainer.data.loading.pool import Task, ahead, pieces
from trainer.data.loading.replacing import first_read

HOW_WITHOUT_AREA = (
    "Are left and right, or top and bottom, exchanged, a width or height negative, or boxes outside the image?"
)


@dataclass(frozen=True, slots=True)
class DetectionImage:
    """An image as a detector is given it, and its objects."""

    pixels: Tensor
    """(3, h, w) uint8, channels R, G, B."""
    size: tuple[int, int]
    """(height, width) of the image in the data set."""
    annotation: Annotation
    """The annotation in pixels of the data set, flipped where the image is; its masks are in `masks`,"""
    masks: PackedMasks | None
    """where the data set was asked for them."""

    @property
    def scale(self) -> tuple[float, float]:
        """(across, down): pixels here for one of the data set."""
        return self.pixels.shape[2] / self.size[1], self.pixels.shape[1] / self.size[0]


@dataclass(slots=True)
class DetectionBatch:
    """This rank's images of one step; `skipped`: names and causes of those that others stand for."""

    step: int
    indices: np.ndarray
    """(n,) int64, places in the data set."""
    images: list[DetectionImage]
    skipped: dict[str, str] = field(default_factory=dict)


class DetectionBatches:
    """Images that have something to learn from, in an order keyed by (seed, epoch).

    Left out are images without objects, or with such alone as have no area. The global batch of a step is a contiguous
    slice of the epoch's order and each rank takes its contiguous share; the last partial batch of an epoch is dropped.
    Whether an image is flipped, and to which short side it is resized, is drawn by (seed, epoch, image). An image that
    cannot be read, or whose objects cannot, is replaced by the next one that can.
    """

    def __init__(
        self,
        dataset: AnnotatedDataSet,
        *,
        sides: tuple[int, ...],
        longest: int,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        threads: int,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """`batch_size` is global.

        Raises:
            DataError: no image has an object to learn from, or fewer have than are in a batch.
        """
        self.fingerprint = dataset.fingerprint
        self.boxes = dataset.box_counts()
        self.with_objects = np.flatnonzero(self.boxes.objects > self.boxes.without_area)
        if not len(self.with_objects):
            raise DataError(_nothing_to_learn(dataset, self.boxes))
        if len(self.with_objects) < batch_size:
            raise DataError(
                f"batch_size {batch_size} is above the {len(self.with_objects)} images with objects to learn from; "
                f"use at most {len(self.with_objects)}, or more of the data set"
            )
        assert batch_size % world_size == 0, (batch_size, world_size)
        self.steps_per_epoch = len(self.with_objects) // batch_size
        self.dataset = dataset
        self._sides = sides
        self._longest = longest
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._threads = threads
        self._tick = tick

    def iterate(self, first_step: int, last_step: int) -> Generator[DetectionBatch]:
        """The batches of steps first_step + 1 .. last_step.

        Raises:
            DataError: an image could not be loaded; names its index.
            OSError: the disk does not give it.
        """
        with closing(ahead(self._tasks(first_step, last_step), self._threads)) as batches:
            for batch in batches:
                batch.skipped = dict(sorted(batch.skipped.items()))
                yield batch

    def _tasks(self, first_step: int, last_step: int) -> Iterator[Task[DetectionBatch]]:
        each = self._batch_size // self._world_size
        share = slice(self._rank * each, (self._rank + 1) * each)
        batches = global_batches(len(self.with_objects), self._batch_size, self._seed, first_step, last_step)
        for step, epoch, whole in batches:
            yield self._task(step, epoch, self.with_objects[whole[share]])

    def _task(self, step: int, epoch: int, indices: np.ndarray) -> Task[DetectionBatch]:
        rows: list[DetectionImage | None] = [None] * len(indices)
        batch = DetectionBatch(step, indices, rows)  # type: ignore[arg-type]

        def read(index: int) -> tuple[np.ndarray, Annotation]:
            there = self.dataset.annotation(index)
            if self.dataset.ignored_are_difficult:
                there = replace(there, ignored=np.zeros_like(there.ignored))
            return self.dataset.image(index), there

        def load(row: int) -> None:
            index, (image, there) = first_read(read, len(self.dataset), int(indices[row]), batch.skipped)
            batch.indices[row] = index
            flip, which = uniforms(Purpose.SHORT_SIDE, self._seed, epoch, index, count=2)
            short = self._sides[int(which * len(self._sides))]
            rows[row] = prepared(image, there, short, self._longest, flip=bool(flip < 0.5))

        return Task(batch, pieces(load, indices, self._threads, self._tick))


def _nothing_to_learn(dataset: AnnotatedDataSet, boxes: BoxCounts) -> str:
    if objects := int(boxes.objects.sum()):
        return (
            f"no image has an object to learn from: none of the {objects:,} boxes of the training split has an area "
            f"within its image. {HOW_WITHOUT_AREA} Correct the annotations"
        )
    ignored = told_of(dataset, "the training split")
    why = f": {ignored}, or" if ignored else ";"
    return f"no image of the training split has an object to learn from{why} use another split"


@dataclass(slots=True)
class JudgedImage:
    """One image of a test split; `image` is None where it cannot be read, for the cause in `unreadable`."""

    index: int
    image: DetectionImage | None = None
    unreadable: UnreadableImage | None = None


def judged_images(
    dataset: AnnotatedDataSet,
    share: range,
    *,
    short: int,
    longest: int,
    threads: int,
    tick: Callable[[], None] = lambda: None,
) -> Generator[JudgedImage]:
    """The images of `share` in order, as they are.

    Raises:
        DataError: an image could not be loaded for another reason than that it is unreadable; names its index.
        OSError: the disk does not give it.
    """

    def tasks() -> Iterator[Task[JudgedImage]]:
        for index in share:
            out = JudgedImage(index)
            yield Task(out, pieces(partial(load, out), np.array([index]), 1, tick))

    def load(out: JudgedImage, row: int) -> None:
        try:
            image, annotation = dataset.image(out.index), dataset.annotation(out.index)
        except UnreadableImage as error:
            out.unreadable = error
        else:
            out.image = prepared(image, annotation, short, longest, flip=False)

    with closing(ahead(tasks(), threads)) as loaded:
        yield from loaded


def prepared(image: np.ndarray, annotation: Annotation, short: int, longest: int, *, flip: bool) -> DetectionImage:
    """Flip and resize (bilinear) an image (H, W, 3) uint8 and its objects."""
    size = (image.shape[0], image.shape[1])
    height, width = resized(size, short, longest)
    pixels = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    if flip:
        pixels, annotation = pixels[:, ::-1], flipped(annotation, size[1])
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    masks = None if annotation.masks is None else PackedMasks(annotation.masks)
    return DetectionImage(tensor, size, replace(annotation, masks=None), masks)


def resized(size: tuple[int, int], short: int, longest: int) -> tuple[int, int]:
    """(height, width) with the short side at `short`, or less where the long side would exceed `longest`."""
    scale = min(short / min(size), longest / max(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def flipped(annotation: Annotation, width: int) -> Annotation:
    """The objects of the image seen in a mirror: what was left is right."""
    left, top, right, bottom = annotation.boxes.T
    boxes = np.stack([width - right, top, width - left, bottom], axis=1)
    masks = None if annotation.masks is None else annotation.masks[:, :, ::-1]
    return Annotation(boxes, annotation.classes, annotation.ignored, masks)
