"""Images in records of one length in files, as CIFAR and STL-10 are published; read one at a time."""

from __future__ import annotations

import hashlib
import os
import weakref
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from barlow_lab.given_files import open_descriptor, read_text
from trainer.data.decoding.reading import is_almost_black
from trainer.data.errors import DataError, SplitNotThere
from trainer.data.image_files import identity

MAX_NAMES_BYTES = 1 << 20
"""Most bytes of a list of classes."""
BLOCK_BYTES = 1 << 22
"""Bytes of records that are looked at together."""


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


@dataclass(frozen=True, slots=True)
class BinaryRecords:
    """What the pixels of all records are: (n,) each."""

    identities: NDArray[np.int64]
    """Equal where the pixels are."""
    one_colour: NDArray[np.bool_]
    """Each of the three planes is of one value, as where a file was not written."""
    almost_black: NDArray[np.bool_]
    """And not of one colour."""


_looked_through: dict[tuple[int, Layout], BinaryRecords] = {}
"""What was found in each file that this process has looked through, by its identity: a run opens some of them twice."""


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
        self.files = [(file.name, count) for file, count in zip(files, self._counts, strict=True)]
        """Names, and numbers of records."""
        self.fingerprint = hashlib.sha256(repr((classes, layout, self.files)).encode()).hexdigest()
        """A digest of names and sizes of the files, not of their content."""

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
        record = _read(self._descriptors[file], place - int(self._firsts[file]), 1, length)
        planes = np.frombuffer(record, np.uint8, offset=header).reshape(3, side, side)
        return np.ascontiguousarray(planes.transpose((1, 2, 0) if self._layout.order == "rows" else (2, 1, 0)))

    def interleaved(self, index: int) -> NDArray[np.uint8]:
        """What the image would be if its record held red, green and blue of one pixel after the other, row by row."""
        axes = (2, 0, 1) if self._layout.order == "rows" else (2, 1, 0)
        return self.image(index).transpose(axes).reshape(self._layout.side, self._layout.side, 3)

    def name(self, index: int) -> str:
        return str(range(len(self))[index])

    def records(self, tick: Callable[[], None]) -> BinaryRecords:
        """Look through all records, a gigabyte in about two seconds, a file once in a process; `tick` is called for
        each.

        Raises:
            OSError: as `image`.
        """
        parts = []
        for descriptor, count in zip(self._descriptors, self._counts, strict=True):
            key = identity(os.fstat(descriptor)), self._layout
            if key not in _looked_through:
                _looked_through[key] = _look_through(descriptor, count, self._layout, tick)
            parts.append(_looked_through[key])
        return BinaryRecords(
            np.concatenate([part.identities for part in parts]),
            np.concatenate([part.one_colour for part in parts]),
            np.concatenate([part.almost_black for part in parts]),
        )


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


def other_than_published(images: BinaryImages, split: str, published: int) -> str | None:
    """What to say of files of a split with another number of images than each has that is `published` under its name;
    None: there are none."""
    if others := [f"{name} holds {count:,}" for name, count in images.files if count != published]:
        return (
            f"split {split!r}: {', '.join(others)} images, and the published file {published:,}. If it is not a set of "
            "your own, it was cut short or joined: unpack the archive again"
        )
    return None


def refuse_if_others_are_there(
    root: Path, split: str, missing: Sequence[str], files: Mapping[str, Sequence[str]], archive: str
) -> None:
    """Refuse a split for the files of it that are `missing`, if all of another one's are there: `files` are those of
    each, from the `archive`.

    Raises:
        SplitNotThere: they are.
    """
    of_it = [name for name in missing if name in files[split]]
    whole = [other for other, names in files.items() if all((root / name).is_file() for name in names)]
    if whole and len(of_it) == len(missing):
        raise SplitNotThere(
            f"split {split!r} is not in {root} for want of {', '.join(of_it)}; unpack {archive} again, or take what "
            f"is there: {', '.join(whole)}"
        )


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


def _read(descriptor: int, first: int, count: int, length: int) -> bytes:
    """So many records of a file, from the first of them on."""
    raw = os.pread(descriptor, count * length, first * length)
    if len(raw) < count * length:
        gone = first + len(raw) // length
        raise OSError(f"record {gone} is not in its file any more: it was cut short after it had been opened")
    return raw


def _look_through(descriptor: int, count: int, layout: Layout, tick: Callable[[], None]) -> BinaryRecords:
    length, header, area = layout.record_bytes, layout.header, layout.side**2
    identities, one_colour, almost_black = array("q"), bytearray(), bytearray()
    together = max(1, BLOCK_BYTES // length)
    for first in range(0, count, together):
        raw = _read(descriptor, first, min(together, count - first), length)
        for start in range(0, len(raw), length):
            tick()
            pixels = raw[start + header : start + length]
            identities.append(hash(pixels))
            planes = (pixels[place : place + area] for place in range(0, 3 * area, area))
            flat = all(plane[0] == plane[-1] and plane.count(plane[0]) == area for plane in planes)
            one_colour.append(flat)
            almost_black.append(not flat and is_almost_black(np.frombuffer(pixels, np.uint8)))
    return BinaryRecords(
        np.array(identities, dtype=np.int64),
        np.frombuffer(one_colour, dtype=np.bool_),
        np.frombuffer(almost_black, dtype=np.bool_),
    )


def _opened(owner: BinaryImages, file: Path) -> int:
    descriptor = open_descriptor(file)
    weakref.finalize(owner, os.close, descriptor)
    return descriptor
