"""What a data set is: images by index, with labels that pretraining never looks at."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ImageDataSet(Protocol):
    """One split of a data set. `image` may be called from many threads at once."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the data is: equal fingerprints mean equal images, labels and order.

        Of a tree of files, whose content is not read for it, equal names and sizes.
        """
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB. The caller does not write to it.

        Raises:
            UnreadableImage: this image cannot be read; names it and the cause.
        """
        ...

    def label(self, index: int) -> int:
        """Index of the image's class."""
        ...

    def labels(self) -> NDArray[np.int64]:
        """All labels, (n,) int64."""
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


class FirstImages:
    """The first `count` images of another data set."""

    def __init__(self, whole: ImageDataSet, count: int) -> None:
        assert 0 < count <= len(whole), (count, len(whole))
        self._whole = whole
        self._count = count
        self.classes = whole.classes
        self.fingerprint = hashlib.sha256(f"{whole.fingerprint} first {count}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> NDArray[np.uint8]:
        return self._whole.image(self._checked(index))

    def label(self, index: int) -> int:
        return self._whole.label(self._checked(index))

    def labels(self) -> NDArray[np.int64]:
        return self._whole.labels()[: self._count]

    def _checked(self, index: int) -> int:
        if not -self._count <= index < self._count:
            raise IndexError(f"image {index} of {self._count}")
        return index % self._count
