"""Images in records of one length in files, as CIFAR and STL-10 are published; read one at a time."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.data.errors import DataError
from trainer.specs.given_files import open_descriptor, read_text

MAX_NAMES_BYTES = 1 << 20
"""Of a list of classes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A record: `header` bytes, then the red, the green and the blue plane of `side` x `side` pixels."""

    side: int
    order: Literal["rows", "columns"]
    """What stands next to each other in a plane."""
    header: int = 0

    @property
    def record_bytes(self) -> int:
        """Length of a record."""
        return self.header + 3 * self.side * self.side


class BinaryImages:
    """Images without labels. An image is called by its number in the split."""

    def __init__(self, files: Sequence[Path], layout: Layout, classes: tuple[str, ...]) -> None:
        """The records of the files, one file after the other.

        Raises:
            DataError: a file does not hold whole records.
            OSError: it is not there.
        """
        self.classes = classes
        self._layout = layout
        self._descriptors = [_opened(self, file) for file in files]
        self._counts = [count_records(file, layout) for file in files]
        self._firsts = np.cumsum([0, *self._counts])
        sizes = [(file.name, count) for file, count in zip(files, self._counts, strict=True)]
        self.fingerprint = hashlib.sha256(repr((classes, layout, sizes)).encode()).hexdigest()
        """Of names and sizes of the files, not of their content."""

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, (side, side, 3) uint8 RGB.

        Raises:
            OSError: the disk does not give it, or the file is shorter than it was.
        """
        place = range(len(self))[index]
        file = int(np.searchsorted(self._firsts, place, side="right")) - 1
        length, header, side = self._layout.record_bytes, self._layout.header, self._layout.side
        record = os.pread(self._descriptors[file], length, (place - int(self._firsts[file])) * length)
        if len(record) < length:
            raise OSError(f"record {place} is not in its file any more: it was cut short after it had been opened")
        planes = np.frombuffer(record, np.uint8, offset=header).reshape(3, side, side)
        return np.ascontiguousarray(planes.transpose((1, 2, 0) if self._layout.order == "rows" else (2, 1, 0)))

    def name(self, index: int) -> str:
        return str(range(len(self))[index])


class LabelledBinaryImages(BinaryImages):
    """The same with one class each."""

    def __init__(
        self, files: Sequence[Path], layout: Layout, classes: tuple[str, ...], labels: NDArray[np.int64]
    ) -> None:
        """`labels` (n,) indices of classes.

        Raises:
            DataError: a file does not hold whole records, or there are not as many labels.
        """
        super().__init__(files, layout, classes)
        if len(labels) != len(self):
            said = f"{len(self):,} images stand in {', '.join(file.name for file in files)}, and {len(labels):,} labels"
            raise DataError(f"{said} beside them; unpack the archive again")
        self._labels = labels
        digest = hashlib.sha256(self.fingerprint.encode())
        digest.update(labels.astype("<i8").data)
        self.fingerprint = digest.hexdigest()

    def name(self, index: int) -> str:
        return f"{self.classes[self.label(index)]}/{super().name(index)}"

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def labels(self) -> NDArray[np.int64]:
        return self._labels.copy()


def count_records(file: Path, layout: Layout) -> int:
    """Records in a file.

    Raises:
        DataError: there is none, or the last is cut short.
        OSError: the file is not there.
    """
    size = file.stat().st_size
    if not size or size % layout.record_bytes:
        raise DataError(
            f"{file} has {size:,} bytes, which is no whole number of records of {layout.record_bytes:,}: the download "
            "or the unpacking was cut short; unpack the archive again"
        )
    return size // layout.record_bytes


def check_labels(labels: NDArray[np.int64], classes: int, file: Path, *, first: int = 0) -> None:
    """Refuse labels out of range; a file counts its classes from `first`.

    Raises:
        DataError: names the first of them.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"{file}: record {wrong[0]:,} is of class {labels[wrong[0]] + first}, and there are {classes}, from "
            f"{first} on: this is not the file of that data set, or it is damaged"
        )


def class_names(file: Path, count: int) -> tuple[str, ...]:
    """Names of classes, one a line.

    Raises:
        DataError: there are not so many.
        OSError: the file cannot be read.
    """
    lines = read_text(file, most=MAX_NAMES_BYTES, errors="backslashreplace").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != count:
        raise DataError(f"{file} names {len(names)} classes, and there are {count}; unpack the archive again")
    return names


def _opened(owner: BinaryImages, file: Path) -> int:
    descriptor = open_descriptor(file)
    weakref.finalize(owner, os.close, descriptor)
    return descriptor
