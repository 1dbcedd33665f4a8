"""CIFAR-10 and CIFAR-100 from their binary version: a record is the class (in CIFAR-100 the coarse and the fine one) in
a byte each, then 3 planes of 32 x 32 px, row by row (cs.toronto.edu/~kriz/cifar.html).

The python version of the archives holds pickles, which run what is in them when they are read: they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from barlow_lab.given_files import read_bytes
from barlow_lab.specs.data_sets import CifarSource
from trainer.data.binary_files import (
    LabelledBinaryImages,
    Layout,
    check_labels,
    class_names,
    other_than_published,
    refuse_if_others_are_there,
)
from trainer.data.errors import DataError

SIDE = 32
FILES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cifar10": {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    "cifar100": {"train": ("train.bin",), "test": ("test.bin",)},
}
"""The files of each split."""
MAX_BYTES = 1 << 28
"""Most bytes of one file: the largest published one has 154 MB."""


def open_cifar(
    source: CifarSource, split: str, *, tick: Callable[[], None], warn: Callable[[str], None]
) -> LabelledBinaryImages:
    """Open split `train` or `test`; of CIFAR-100 with the fine classes. `tick` is called for every file, `warn` where
    one does not hold as many images as the published one.

    Raises:
        SplitNotThere: of the split files are not there, and those of another one are.
        DataError: the folder holds another version, a file is cut short, or a class is out of range.
        OSError: a file cannot be read.
    """
    ten = source.format == "cifar10"
    files = [source.root / name for name in FILES[source.format][split]]
    labels_file = source.root / ("batches.meta.txt" if ten else "fine_label_names.txt")
    _refuse_another_version(source, split, [*files, labels_file])
    classes = class_names(labels_file, 10 if ten else 100)
    layout = Layout(SIDE, "rows", header=1 if ten else 2)
    labels = []
    for file in files:
        tick()
        records = np.frombuffer(read_bytes(file, most=MAX_BYTES), np.uint8)
        records = records[: len(records) // layout.record_bytes * layout.record_bytes].reshape(-1, layout.record_bytes)
        labels.append(records[:, layout.header - 1].astype(np.int64))
        check_labels(labels[-1], len(classes), file)
    images = LabelledBinaryImages(files, layout, classes, np.concatenate(labels))
    if said := other_than_published(images, split, 50_000 if split == "train" and not ten else 10_000):
        warn(said)
    return images


def _refuse_another_version(source: CifarSource, split: str, files: list[Path]) -> None:
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return
    archive = "cifar-10-binary.tar.gz" if source.format == "cifar10" else "cifar-100-binary.tar.gz"
    refuse_if_others_are_there(source.root, split, missing, FILES[source.format], archive)
    pickled = any((source.root / name).exists() for name in ("batches.meta", "meta"))
    said = "it holds the python version, whose pickles are not read: they can run code" if pickled else "not in it"
    raise DataError(
        f"{source.root} is not a folder of {source.format} ({', '.join(missing)}: {said}); unpack {archive}, "
        "the binary version, and name its folder as root"
    )
