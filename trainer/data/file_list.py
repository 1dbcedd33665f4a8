"""A data set from text files of lines `PATH CLASS_NUMBER`, as Places205 is published."""

from __future__ import annotations

import codecs
import os
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.errors import DataError
from trainer.data.image_files import Names, printable
from trainer.data.labelled_files import LabelledFiles
from trainer.specs.data_sets import FileListSource
from trainer.specs.given_files import open_regular

FORMAT = "a line is the path of an image, a blank and the number of its class from 0, as `a/abbey/1.jpg 0`"
LONGEST_LINE = 1 << 16


def open_file_list(
    source: FileListSource, split: str, classes: int | None, *, tick: Callable[[], None]
) -> LabelledFiles:
    """Open a split; a class is called by its number, and there are `classes` of them.

    Without `classes` there are as many as the highest number of any split's list says.

    Raises:
        DataError: a list cannot be read, a number is out of range, or images are not there.
        OSError: the list is not there.
    """
    list_ = source.root / source.splits[split]
    names, labels = _read(list_, classes, tick)
    highest = int(labels.max(initial=-1))
    for other in sorted(set(source.splits.values()) - {source.splits[split]}):
        highest = max(highest, int(_read(source.root / other, classes, tick)[1].max(initial=-1)))
    numbers = tuple(map(str, range(highest + 1)))
    return LabelledFiles(f"the list {list_.name}", source.root / source.images, names, labels, numbers, tick)


def files_of_list(source: FileListSource, split: str, tick: Callable[[], None]) -> Iterator[bytes]:
    """Paths of the files that the list of a split names.

    Raises:
        DataError: it cannot be read.
        OSError: it is not there.
    """
    names, _ = _read(source.root / source.splits[split], None, tick)
    folder = os.fsencode(source.root / source.images)
    return (os.path.join(folder, names[place]) for place in range(len(names)))


def _read(path: Path, classes: int | None, tick: Callable[[], None]) -> tuple[Names, NDArray[np.int64]]:
    names, labels = Names(), array("q")
    with open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            tick()
            if len(line) == LONGEST_LINE:
                raise DataError(f"{path}, line {number} has {LONGEST_LINE:,} bytes or more; {FORMAT}")
            parts = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rsplit(None, 1)
            if not parts:
                continue
            if len(parts) != 2 or not parts[1].isdigit() or len(parts[1]) > 9:
                raise DataError(f"{path}, line {number}: {printable(line.strip())[:100]!r} is no image; {FORMAT}")
            label = int(parts[1])
            if classes is not None and label >= classes:
                raise DataError(f"{path}, line {number}: class {label} of {classes}; classes count from 0")
            names.append(parts[0].strip())
            labels.append(label)
    return names, np.array(labels, dtype=np.int64)
