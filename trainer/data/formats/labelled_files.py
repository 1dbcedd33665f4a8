"""One split of a data set whose images are files with one class each, as a list or annotations name them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.errors import DataError
from trainer.data.formats.named_files import named_files
from trainer.data.image_files import FileImages, PackedNames


class LabelledFiles(FileImages):
    """Images of a folder by name.

    As in an image folder they come one of each class in turn, within a class in the order given, so that any beginning
    of the data set holds as many classes as it can: published lists are sorted by class.
    """

    def __init__(
        self,
        whose: str,
        folder: Path,
        names: PackedNames,
        labels: NDArray[np.int64],
        classes: tuple[str, ...],
        tick: Callable[[], None],
    ) -> None:
        """`names` below `folder`, `labels` (n,) their classes; `whose` is what an error calls the list they are from.

        Raises:
            DataError: there is no image, or files are not there.
        """
        if not len(names):
            raise DataError(f"{whose} names no image")
        assert labels.shape == (len(names),), labels.shape
        self._folder = os.fsencode(folder)
        self._order = _in_turn(labels)
        self._labels = labels[self._order]
        self.classes = classes
        digest = hashlib.sha256(repr(classes).encode())
        files = named_files(whose, self._folder, names, tick)
        self._names = files.names
        self.identities, self.file_sizes = files.identities[self._order], files.sizes[self._order]
        digest.update(files.digest)
        digest.update(labels.astype("<i8").data)
        self.fingerprint = digest.hexdigest()
        """A digest of classes, labels, names and sizes in the order given."""

    def __len__(self) -> int:
        return len(self._names)

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def labels(self) -> NDArray[np.int64]:
        return self._labels.copy()

    def _path(self, index: int) -> bytes:
        return self._names[self._order[index]]


def _in_turn(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the first image of each class, of the second of each, and so on: (n,) int64."""
    by_class = np.argsort(labels, kind="stable")
    _, counts = np.unique(labels, return_counts=True)
    turns = np.empty(len(labels), dtype=np.int64)
    turns[by_class] = np.concatenate([np.arange(count) for count in counts])
    order: NDArray[np.int64] = np.lexsort((labels, turns))
    return order
