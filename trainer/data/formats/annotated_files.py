"""One split of a data set whose images are files with any number of objects each."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.data.datasets import Annotation, BoxCounts, MaskFaults
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.formats.named_files import named_files
from trainer.data.image_files import FileImages, PackedNames, said


class Masks(Protocol):
    """Masks of objects by their places, in images of a height and a width."""

    def look(self, place: int, height: int, width: int) -> tuple[int, bool]:
        """How many polygons of an object are none, and whether the others show nothing: no pixel, or the first one of
        the image at most.

        Raises:
            ValueError: nothing of its mask can be read; says why.
            OSError: the disk does not give it.
        """
        ...

    def masks(self, places: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
        """The masks (k, H, W) of the objects of an image, without the polygons that are none.

        Raises:
            ValueError: one of them cannot be read, or together they cost too much; says why.
            OSError: the disk does not give them.
        """
        ...


@dataclass(slots=True)
class Objects:
    """Objects of all images, image by image, while they are read."""

    boxes: array[float] = field(default_factory=lambda: array("f"))
    """4 numbers each: left, top, right, bottom."""
    classes: array[int] = field(default_factory=lambda: array("q"))
    ignored: array[int] = field(default_factory=lambda: array("b"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    """The number of objects up to the last one of each image."""

    def add(self, box: tuple[float, float, float, float], label: int, *, ignored: bool) -> None:
        """One more object of the image at hand."""
        self.boxes.extend(box)
        self.classes.append(label)
        self.ignored.append(ignored)

    def end_image(self) -> None:
        """What comes now belongs to the next image."""
        self.ends.append(len(self.classes))


class AnnotatedFiles(FileImages):
    """Images of a folder by name, in the order given, with their objects.

    Boxes are cut off at the edges of their image, for that is what is seen of an object. One without an area, there or
    from the start, is an object that nothing can find: in a test it is missed, and its class counts as known of an
    image neither to be in it nor not (`presence`), as that of an ignored one.
    """

    def __init__(
        self,
        whose: str,
        folder: Path,
        names: PackedNames,
        sizes: NDArray[np.int32],
        objects: Objects,
        classes: tuple[str, ...],
        annotations: str,
        tick: Callable[[], None],
        masks: Masks | None = None,
        *,
        ignored_are_difficult: bool = False,
    ) -> None:
        """`names` below `folder`, `sizes` (n, 2) height and width; `annotations` is the digest of what they are from.

        Raises:
            DataError: there is no image, or files are not there; `whose` is what the error calls their list.
        """
        if not len(names):
            raise DataError(f"{whose} names no image")
        assert sizes.shape == (len(names), 2), sizes.shape
        self._folder = os.fsencode(folder)
        self._sizes = sizes
        self._boxes = np.array(objects.boxes, dtype=np.float32).reshape(-1, 4)
        self._classes = np.array(objects.classes, dtype=np.int64)
        self._ignored = np.array(objects.ignored, dtype=np.bool_)
        self._ends = np.array(objects.ends, dtype=np.int64)
        assert len(self._ends) == len(names), (len(self._ends), len(names))
        self._masks = masks
        self._places: NDArray[np.int64] | None = None
        """The place of each object among the masks, where these were asked for."""
        self.classes = classes
        self.has_masks = masks is not None
        self.ignored_are_difficult = ignored_are_difficult
        files = named_files(whose, self._folder, names, tick)
        self._names, self.identities, self.file_sizes = files.names, files.identities, files.sizes
        self.fingerprint = hashlib.sha256(repr((classes, files.digest.hex(), annotations)).encode()).hexdigest()
        """A digest of the annotations' content, of names and sizes of the images, and of the classes."""

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB.

        Raises:
            UnreadableImage: the file is not there, may not be read, is no image, or not of the size annotated.
            OSError: the disk does not give it, or is not there any more.
        """
        image = super().image(index)
        height, width = self.size(index)
        if image.shape[:2] != (height, width):
            why = f"it has {image.shape[1]} x {image.shape[0]} pixels, and its annotation says {width} x {height}"
            if image.shape[1::-1] == (height, width) and (orientation := self._orientation(index)) > 4:
                why += (
                    f", as it is stored: it is turned by its Exif orientation {orientation}, and boxes and masks are "
                    "taken as of the image as viewers show it, turned. If they are, exchange width and height in the "
                    "annotation, else take the orientation out of the file"
                )
            raise UnreadableImage(said(self._path(index)), why)
        return image

    def tell_of_turns(self) -> None:
        """Tell from now on of images that Exif turns, where their boxes may be of the pixels as stored."""
        self._reading.of_boxes = True

    def size(self, index: int) -> tuple[int, int]:
        height, width = self._sizes[index].tolist()
        return height, width

    def annotation(self, index: int) -> Annotation:
        """The objects of an image; their masks after `with_masks` alone.

        Raises:
            UnreadableImage: a mask cannot be read any more, or they cost too much together.
            OSError: the disk does not give the masks.
        """
        index = range(len(self))[index]
        rows = self._rows(index)
        height, width = self.size(index)
        given = self._boxes[rows]
        return Annotation(
            boxes=_cut(given, np.array([[width, height]], dtype=np.int32)),
            classes=self._classes[rows].copy(),
            ignored=self._ignored[rows].copy(),
            masks=None if self._places is None else self._masks_of(index, rows, self._places),
            cut=int(((given < 0) | (given > [width, height, width, height])).any(axis=1).sum()),
        )

    def with_masks(self, tick: Callable[[], None], *, first: int | None = None) -> tuple[AnnotatedFiles, MaskFaults]:
        """The same images and the objects whose masks can be read, with these.

        Raises:
            OSError: the disk does not give them.
        """
        assert self._masks is not None, "has_masks says so"
        kept = np.ones(len(self._classes), dtype=np.bool_)
        polygons, nothing, said_first = 0, 0, ""
        for index in range(len(self) if first is None else min(first, len(self))):
            height, width = self.size(index)
            rows = self._rows(index)
            for place in range(rows.start, rows.stop):
                tick()
                try:
                    without, empty = self._masks.look(place, height, width)
                    cause = f"{without} of its polygons left out, which have fewer than three points" if without else ""
                    if empty:
                        cause = (
                            cause or "a mask of no pixel, or of the first one alone; points are pixels, no fractions"
                        )
                except ValueError as error:
                    kept[place], without, empty, cause = False, 0, False, str(error)
                polygons += without
                nothing += empty
                said_first = said_first or (f"{said(self._names[index])}: {cause}" if cause else "")
        masked = copy(self)
        masked._places = np.flatnonzero(kept)
        masked._boxes, masked._classes = self._boxes[kept], self._classes[kept]
        masked._ignored = self._ignored[kept]
        masked._ends = np.concatenate([[0], np.cumsum(kept)])[self._ends]
        return masked, MaskFaults(int((~kept).sum()), polygons, nothing, said_first)

    def presence(self) -> NDArray[np.int8]:
        """(n, classes) int8: 1 the class is in the image, 0 it is not, -1 only ignored objects of it are, or such as
        have no area."""
        images = self._images_of_objects()
        unknown = self._ignored | self._without_area(images)
        there = np.zeros((len(self), len(self.classes)), dtype=np.int8)
        there[images[unknown], self._classes[unknown]] = -1
        there[images[~unknown], self._classes[~unknown]] = 1
        return there

    def box_counts(self) -> BoxCounts:
        """How many objects of each image a detector has to learn, and what is wrong with their boxes."""
        images = self._images_of_objects()
        learned = np.ones_like(self._ignored) if self.ignored_are_difficult else ~self._ignored
        edges = np.tile(self._sizes[images][:, ::-1], 2)
        over = ((self._boxes < 0) | (self._boxes > edges)).any(axis=1)
        counts = (
            np.bincount(images[which], minlength=len(self)).astype(np.int64)
            for which in (learned, learned & self._without_area(images), over, self._ignored)
        )
        return BoxCounts(*counts)

    def _images_of_objects(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self)), np.diff(self._ends, prepend=0))

    def _without_area(self, images: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether nothing of an object's box is within its image; `images` are those of all objects."""
        boxes = _cut(self._boxes, self._sizes[images][:, ::-1])
        return np.asarray((boxes[:, :2] >= boxes[:, 2:]).any(axis=1))

    def _path(self, index: int) -> bytes:
        return self._names[range(len(self))[index]]

    def _rows(self, index: int) -> slice:
        return slice(int(self._ends[index - 1]) if index else 0, int(self._ends[index]))

    def _masks_of(self, index: int, rows: slice, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        assert self._masks is not None
        height, width = self.size(index)
        try:
            return self._masks.masks(places[rows].tolist(), height, width)
        except ValueError as error:
            raise UnreadableImage(said(self._names[index]), f"its masks: {error}") from error


def _cut(boxes: NDArray[np.float32], edges: NDArray[np.int32]) -> NDArray[np.float32]:
    """Boxes (k, 4) within images whose right and bottom edges are `edges` (k, 2) or (1, 2). Of one whose left is right
    of its right nothing is left."""
    within = np.concatenate([np.clip(boxes[:, :2], 0, edges), np.clip(boxes[:, 2:], 0, edges)], axis=1)
    within[:, 2:] = np.maximum(within[:, :2], within[:, 2:])
    return within.astype(np.float32)
