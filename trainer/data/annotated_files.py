"""One split of a data set whose images are files with any number of objects each."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.datasets import Annotation
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.image_files import Names, base_name, digest_of_files, read_image, said

Masks = Callable[[int, int, int], NDArray[np.bool_]]
"""(place of an object, height, width of its image) -> (H, W). Raises ValueError: there is none, says why."""

SLACK = 1.0
"""Pixels a box may reach over the edge of its image: COCO's are rounded to hundredths. It is cut off."""


@dataclass(slots=True)
class Objects:
    """Objects of all images, image by image, while they are read."""

    boxes: array[float] = field(default_factory=lambda: array("f"))
    """4 numbers each: left, top, right, bottom."""
    classes: array[int] = field(default_factory=lambda: array("q"))
    ignored: array[int] = field(default_factory=lambda: array("b"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    """Of each image the number of objects up to its last."""

    def add(self, box: tuple[float, float, float, float], label: int, *, ignored: bool) -> None:
        """One more object of the image at hand."""
        self.boxes.extend(box)
        self.classes.append(label)
        self.ignored.append(ignored)

    def end_image(self) -> None:
        """What comes now belongs to the next image."""
        self.ends.append(len(self.classes))


class AnnotatedFiles:
    """Images of a folder by name, in the order given, with their objects. A box that nothing is in counts as ignored,
    for nothing can find it."""

    def __init__(
        self,
        whose: str,
        folder: Path,
        names: Names,
        sizes: NDArray[np.int32],
        objects: Objects,
        classes: tuple[str, ...],
        annotations: str,
        tick: Callable[[], None],
        masks: Masks | None = None,
        *,
        learns_ignored: bool = False,
    ) -> None:
        """`names` below `folder`, `sizes` (n, 2) height and width; `annotations` is the digest of what they are from.

        Raises:
            DataError: there is no image, or files are not there; `whose` is what the error calls their list.
        """
        if not len(names):
            raise DataError(f"{whose} names no image")
        assert sizes.shape == (len(names), 2), sizes.shape
        self._folder = os.fsencode(folder)
        self._names = names
        self._sizes = sizes
        self._boxes = np.array(objects.boxes, dtype=np.float32).reshape(-1, 4)
        self._classes = np.array(objects.classes, dtype=np.int64)
        self._ignored = np.array(objects.ignored, dtype=np.bool_)
        self._ends = np.array(objects.ends, dtype=np.int64)
        assert len(self._ends) == len(names), (len(self._ends), len(names))
        edges = np.repeat(sizes[:, ::-1], np.diff(self._ends, prepend=0), axis=0)  # right and bottom of its image
        self._ignored |= (np.clip(self._boxes[:, :2], 0, edges) >= np.clip(self._boxes[:, 2:], 0, edges)).any(axis=1)
        self._masks = masks
        self.classes = classes
        self.has_masks = masks is not None
        self.learns_ignored = learns_ignored
        files = digest_of_files(whose, self._folder, names, tick).hex()
        self.fingerprint = hashlib.sha256(repr((classes, files, annotations)).encode()).hexdigest()
        """Of the annotations' content, of names and sizes of the images, and of the classes."""

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB.

        Raises:
            UnreadableImage: the file is not there, may not be read, is no image, or not of the size annotated.
            OSError: the disk does not give it, or is not there any more.
        """
        name = self._names[range(len(self))[index]]
        image = read_image(self._folder, name)
        height, width = self.size(index)
        if image.shape[:2] != (height, width):
            why = f"it has {image.shape[1]} x {image.shape[0]} pixels, and its annotation says {width} x {height}"
            raise UnreadableImage(said(name), why)
        return image

    def name(self, index: int) -> str:
        return base_name(self._names[range(len(self))[index]])

    def size(self, index: int) -> tuple[int, int]:
        height, width = self._sizes[index].tolist()
        return height, width

    def annotation(self, index: int) -> Annotation:
        """The objects of an image.

        Raises:
            UnreadableImage: a box is not in the image, or a mask cannot be read.
            OSError: the disk does not give the masks.
        """
        index = range(len(self))[index]
        rows = slice(int(self._ends[index - 1]) if index else 0, int(self._ends[index]))
        height, width = self.size(index)
        given = self._boxes[rows]
        edge = np.array([width, height, width, height], dtype=np.float32)
        outside = ~((given >= -SLACK) & (given <= edge + SLACK)).all(axis=1) | (given[:, :2] > given[:, 2:]).any(axis=1)
        if outside.any():
            box = ", ".join(f"{number:g}" for number in given[outside][0])
            why = f"the box ({box}; left, top, right, bottom) is not in the image of {width} x {height} pixels"
            raise UnreadableImage(said(self._names[index]), why)
        boxes = np.clip(given, 0, edge)
        return Annotation(
            boxes=boxes,
            classes=self._classes[rows].copy(),
            ignored=self._ignored[rows].copy(),
            masks=None if self._masks is None else self._masks_of(index, rows, self._masks),
        )

    def presence(self) -> NDArray[np.int8]:
        """(n, classes) int8: 1 the class is in the image, 0 it is not, -1 only ignored objects of it are."""
        images = np.repeat(np.arange(len(self)), np.diff(self._ends, prepend=0))
        there = np.zeros((len(self), len(self.classes)), dtype=np.int8)
        there[images[self._ignored], self._classes[self._ignored]] = -1
        there[images[~self._ignored], self._classes[~self._ignored]] = 1
        return there

    def _masks_of(self, index: int, rows: slice, mask: Masks) -> NDArray[np.bool_]:
        height, width = self.size(index)
        masks = np.zeros((rows.stop - rows.start, height, width), dtype=np.bool_)
        try:
            for row, place in enumerate(range(rows.start, rows.stop)):
                masks[row] = mask(place, height, width)
        except ValueError as error:
            raise UnreadableImage(said(self._names[index]), f"its masks: {error}") from error
        return masks
