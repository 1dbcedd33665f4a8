"""What a data set is: images by index, with labels that pretraining never looks at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class Images(Protocol):
    """One split of a data set. `image` may be called from many threads at once."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the data is: equal fingerprints mean equal images, labels and order.

        Of files, whose content is not read for it, equal names and sizes; of annotations their content.
        """
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB. The caller does not write to it.

        Raises:
            UnreadableImage: this image cannot be read; names it and the cause.
        """
        ...

    def name(self, index: int) -> str:
        """What the image is called where it comes from, and no other image of the split: its path below the folder of
        the split (CLASS/... of a tree), or below the folder of the list or the annotations; of images that are no files
        CLASS/NUMBER, or their number in the split where they have no class.
        """
        ...


@runtime_checkable
class ImageDataSet(Images, Protocol):
    """Images of one class each."""

    def label(self, index: int) -> int:
        """Index of the image's class."""
        ...

    def labels(self) -> NDArray[np.int64]:
        """All labels, (n,) int64."""
        ...


@dataclass(frozen=True, slots=True)
class Annotation:
    """The objects of one image, in pixels of the image as `image` gives it."""

    boxes: NDArray[np.float32]
    """(k, 4): left, top, right, bottom; right and bottom are of the first pixel outside (one pixel is 1 wide). Within
    the image; one without an area is there, though nothing can find it."""
    classes: NDArray[np.int64]
    """(k,) indices into the data set's classes."""
    ignored: NDArray[np.bool_]
    """(k,) objects that count neither as found nor as missed: VOC's difficult ones, COCO's crowds."""
    masks: NDArray[np.bool_] | None
    """(k, H, W), None where the data set has none, or was not asked for them."""
    cut: int = 0
    """Boxes that reached over the edge of the image, where they are cut off."""


@dataclass(frozen=True, slots=True)
class BoxCounts:
    """What a detector has to learn from, by image: (n,) int64 each."""

    objects: NDArray[np.int64]
    """Objects that are to be learned: difficult ones are, crowds are not."""
    without_area: NDArray[np.int64]
    """Those of them whose box has no area, within its image: they teach nothing."""
    cut: NDArray[np.int64]
    """Boxes that reach over the edge of their image, whatever they are of."""
    ignored: NDArray[np.int64]
    """Crowds, or difficult objects."""

    def first(self, count: int) -> BoxCounts:
        """The counts of the first images."""
        return BoxCounts(self.objects[:count], self.without_area[:count], self.cut[:count], self.ignored[:count])


@dataclass(frozen=True, slots=True)
class MaskFaults:
    """What is wrong with the masks of a split."""

    objects: int = 0
    """Objects without a mask that can be read: they are left out."""
    polygons: int = 0
    """Polygons that are none, of objects that have others: they are left out of their masks."""
    empty: int = 0
    """Objects whose mask shows nothing: they are kept, and no mask that is found overlaps theirs."""
    first: str = ""
    """Image and cause of the first of all these."""


@runtime_checkable
class AnnotatedDataSet(Images, Protocol):
    """Images with any number of objects each."""

    @property
    def has_masks(self) -> bool: ...

    @property
    def ignored_are_difficult(self) -> bool:
        """Whether its ignored objects are VOC's difficult ones, and not COCO's crowds: on those a detector is trained
        as on any other, and they are judged by VOC's rule."""
        ...

    def annotation(self, index: int) -> Annotation:
        """The objects of an image; may decode masks, so it is as slow as `image`.

        Raises:
            UnreadableImage: the annotation of this image cannot be read.
        """
        ...

    def with_masks(self, tick: Callable[[], None], *, first: int | None = None) -> tuple[AnnotatedDataSet, MaskFaults]:
        """The same data set with the masks of its objects, without the objects that have none that can be read.

        `first` is how many images are looked at, left out: all; `tick` is called for each object. It `has_masks`.

        Raises:
            OSError: the disk does not give them.
        """
        ...

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of the image in pixels, as the annotations say it, without reading the image."""
        ...

    def presence(self) -> NDArray[np.int8]:
        """(n, classes) int8: 1 the class is in the image, 0 it is not, -1 only ignored objects of it are."""
        ...

    def box_counts(self) -> BoxCounts:
        """How many objects of each image a detector has to learn, and what is wrong with their boxes."""
        ...


class ArrayDataSet:
    """A data set that is held in memory."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]) -> None:
        """Images (n, H, W, 3) uint8 RGB, labels (n,) int64."""
        assert images.dtype == np.uint8, images.dtype
        assert images.ndim == 4, images.shape
        assert images.shape[3] == 3, images.shape
        assert labels.dtype == np.int64, labels.dtype
        assert labels.shape == images.shape[:1], (labels.shape, images.shape)
        self._images = np.ascontiguousarray(images)
        self._labels = np.ascontiguousarray(labels)
        self.classes = classes
        digest = hashlib.sha256(repr((classes, images.shape)).encode())
        digest.update(self._images.data)
        digest.update(self._labels.astype("<i8").data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self._images[index]
        return image

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def labels(self) -> NDArray[np.int64]:
        return self._labels.copy()

    def name(self, index: int) -> str:
        place = range(len(self))[index]
        return f"{self.classes[self.label(place)]}/{place}"


class FirstImages:
    """The first `count` images of another data set."""

    def __init__(self, whole: Images, count: int) -> None:
        assert 0 < count <= len(whole), (count, len(whole))
        self.whole = whole
        self._count = count
        self.classes = whole.classes
        self.fingerprint = hashlib.sha256(f"{whole.fingerprint} first {count}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> NDArray[np.uint8]:
        return self.whole.image(self._checked(index))

    def name(self, index: int) -> str:
        return self.whole.name(self._checked(index))

    def _checked(self, index: int) -> int:
        if not -self._count <= index < self._count:
            raise IndexError(f"image {index} of {self._count}")
        return index % self._count


def whole_of(images: Images) -> Images:
    """The split that images were taken from, where they are the first ones of one."""
    return images.whole if isinstance(images, FirstImages) else images


class FirstLabelledImages(FirstImages):
    """The first images, with their classes."""

    def __init__(self, whole: ImageDataSet, count: int) -> None:
        super().__init__(whole, count)
        self._whole = whole

    def label(self, index: int) -> int:
        return self._whole.label(self._checked(index))

    def labels(self) -> NDArray[np.int64]:
        return self._whole.labels()[: self._count]


class FirstAnnotatedImages(FirstImages):
    """The first images, with their objects."""

    def __init__(self, whole: AnnotatedDataSet, count: int) -> None:
        super().__init__(whole, count)
        self._whole = whole
        self.has_masks = whole.has_masks
        self.ignored_are_difficult = whole.ignored_are_difficult

    def annotation(self, index: int) -> Annotation:
        return self._whole.annotation(self._checked(index))

    def with_masks(self, tick: Callable[[], None], *, first: int | None = None) -> tuple[AnnotatedDataSet, MaskFaults]:
        whole, faults = self._whole.with_masks(tick, first=self._count if first is None else min(first, self._count))
        return FirstAnnotatedImages(whole, self._count), faults

    def size(self, index: int) -> tuple[int, int]:
        return self._whole.size(self._checked(index))

    def presence(self) -> NDArray[np.int8]:
        return self._whole.presence()[: self._count]

    def box_counts(self) -> BoxCounts:
        return self._whole.box_counts().first(self._count)
