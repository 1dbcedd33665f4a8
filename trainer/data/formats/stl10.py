"""STL-10 from its binary files: images of 96 x 96 px in 3 planes, column by column, classes from 1 in a file of their
own (cs.stanford.edu/~acoates/stl10)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from barlow_lab.given_files import read_bytes
from barlow_lab.specs.data_sets import Stl10Source
from trainer.data.binary_files import (
    BinaryImages,
    LabelledBinaryImages,
    Layout,
    check_labels,
    class_names,
    other_than_published,
    refuse_if_others_are_there,
)
from trainer.data.errors import DataError

LAYOUT = Layout(96, "columns")
PUBLISHED = {"train": 5_000, "test": 8_000, "unlabeled": 100_000}
"""Images of each split."""
FILES = {
    "train": ("train_X.bin", "train_y.bin"),
    "test": ("test_X.bin", "test_y.bin"),
    "unlabeled": ("unlabeled_X.bin",),
}
"""The files of each split."""
ARCHIVE = "stl10_binary.tar.gz"
MAX_LABELS = 1 << 20
"""Most labels of a file with a byte for each image: the largest published one has 8,000."""


def open_stl10(
    source: Stl10Source, split: str, *, tick: Callable[[], None], warn: Callable[[str], None]
) -> BinaryImages:
    """Open split `train`, `test`, or `unlabeled`, which has no labels. `tick` is called for every file, `warn` where
    one does not hold as many images as the published one.

    Raises:
        SplitNotThere: of the split files are not there, and those of another one are.
        DataError: the folder does not hold the data set, a file is cut short, or a class is out of range.
        OSError: a file cannot be read.
    """
    missing = [name for name in (*FILES[split], "class_names.txt") if not (source.root / name).is_file()]
    if missing:
        refuse_if_others_are_there(source.root, split, missing, FILES, ARCHIVE)
        raise DataError(
            f"{source.root} is not a folder of stl10 (not in it: {', '.join(missing)}); unpack {ARCHIVE} and name its "
            "folder as root"
        )
    images = _open(source, split, tick)
    if said := other_than_published(images, split, PUBLISHED[split]):
        warn(said)
    return images


def _open(source: Stl10Source, split: str, tick: Callable[[], None]) -> BinaryImages:
    tick()
    images, classes = source.root / FILES[split][0], class_names(source.root / "class_names.txt", 10)
    if split == "unlabeled":
        return BinaryImages([images], LAYOUT, classes)
    tick()
    file = source.root / FILES[split][1]
    labels = np.frombuffer(read_bytes(file, most=MAX_LABELS), np.uint8).astype(np.int64) - 1
    check_labels(labels, len(classes), file, first=1)
    return LabelledBinaryImages([images], LAYOUT, classes, labels)
