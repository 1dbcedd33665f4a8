"""A data set from text files of lines `PATH CLASS_NUMBER`, as Places205 is published."""

from __future__ import annotations

import codecs
import os
import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from barlow_lab.given_files import open_regular
from barlow_lab.specs.data_sets import FileListSource
from trainer.data.classes import without_images
from trainer.data.errors import DataError
from trainer.data.formats.labelled_files import LabelledFiles
from trainer.data.image_files import NO_UTF_8, PackedNames, printable

FORMAT = "a line is the path of an image, a blank and the number of its class from 0, as `a/abbey/1.jpg 0`"
LONGEST_LINE = 1 << 16
_NUMBER = re.compile(rb"[0-9]{1,9}(\.0*)?")
"""Also as a table of floats writes it."""


def open_file_list(
    source: FileListSource,
    split: str,
    classes: int | None,
    *,
    tick: Callable[[], None],
    warn: Callable[[str], None],
) -> LabelledFiles:
    """Open a split; a class is called by its number. There are as many as have an image in the list of any split; of
    numbers that are passed over, as 0 where they count from 1, `warn` is told.

    Raises:
        DataError: a list cannot be read, there are not `classes` of them, or images are not there.
        OSError: the list is not there.
    """
    list_ = source.root / source.splits[split]
    names, labels, beyond = _read(list_, classes, tick)
    numbers = np.unique(labels)
    for other in sorted(set(source.splits.values()) - {source.splits[split]}):
        _, more, too_high = _read(source.root / other, classes, tick)
        numbers, beyond = np.union1d(numbers, more), beyond or too_high
    passed_over = without_images(numbers) if len(numbers) else None
    # Numbers from 1 reach one beyond their count; others do not.
    if classes is not None and beyond and (numbers[0] == 0 or numbers[-1] > classes):
        raise DataError(beyond)
    if classes is not None and passed_over and len(numbers) != classes:
        raise DataError(
            f"in its lists {passed_over}. {classes:,} classes are expected: complete it, or say `classes: "
            f"{len(numbers)}` in datasets.yaml if it is meant to be another"
        )
    if passed_over:
        warn(f"in its lists {passed_over}")
    return LabelledFiles(
        f"the list {list_.name}",
        source.root / source.images,
        names,
        np.searchsorted(numbers, labels),
        tuple(map(str, numbers.tolist())),
        tick,
    )


def files_of_list(source: FileListSource, split: str, tick: Callable[[], None]) -> Iterator[bytes]:
    """Paths of the files that the list of a split names.

    Raises:
        DataError: it cannot be read.
        OSError: it is not there.
    """
    names, _, _ = _read(source.root / source.splits[split], None, tick)
    folder = os.fsencode(source.root / source.images)
    return (os.path.join(folder, names[place]) for place in range(len(names)))


def _read(
    path: Path, classes: int | None, tick: Callable[[], None]
) -> tuple[PackedNames, NDArray[np.int64], str | None]:
    """Images and numbers of their classes, and what to say of the first number that is not below `classes`."""
    names, labels = PackedNames(), array("q")
    beyond = None
    with open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            tick()
            if b"\0" in line:
                raise DataError(f"{path} cannot be read: {NO_UTF_8}")
            if b"\r" in line.strip():
                raise DataError(
                    f"{path}, line {number} has carriage returns in it; end lines with line feeds; {FORMAT}"
                )
            if len(line) == LONGEST_LINE:
                raise DataError(f"{path}, line {number} has {LONGEST_LINE:,} bytes or more; {FORMAT}")
            parts = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rsplit(None, 1)
            if not parts:
                continue
            if len(parts) != 2 or not _NUMBER.fullmatch(parts[1]):
                no_table = ", without a heading, commas or quotes" if re.search(rb"[,;]", line) else ""
                told = f"{printable(line.strip())[:100]!r} is no image; {FORMAT}{no_table}"
                raise DataError(f"{path}, line {number}: {told}")
            label = int(float(parts[1]))
            if classes is not None and label >= classes and beyond is None:
                beyond = f"{path}, line {number}: class {label} of {classes}; classes count from 0"
            names.append(parts[0].strip())
            labels.append(label)
    return names, np.array(labels, dtype=np.int64), beyond
