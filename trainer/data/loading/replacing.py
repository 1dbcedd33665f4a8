"""What training puts in the place of an image that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from trainer.data.datasets import Images
from trainer.data.errors import DataError, UnreadableImage

REPLACEMENTS = 100
"""So many images in a row that cannot be read are a fault of the data set, not of images."""


T = TypeVar("T")


def readable_from(dataset: Images, wanted: int, skipped: dict[str, str]) -> tuple[int, np.ndarray]:
    """Image `wanted`, or else the next one of the data set that can be read, with its index; after the last comes the
    first. `skipped` takes in those that were passed over: name → cause.

    Raises:
        DataError: too many in a row cannot be read.
    """
    return first_read(dataset.image, len(dataset), wanted, skipped)


def first_read(read: Callable[[int], T], count: int, wanted: int, skipped: dict[str, str]) -> tuple[int, T]:
    """The same of what `read` gives of an image of `count`, and raises UnreadableImage where it cannot."""
    for index in range(wanted, wanted + min(1 + REPLACEMENTS, count)):
        try:
            return index % count, read(index % count)
        except UnreadableImage as error:
            skipped[error.name] = error.cause
            last = error
    raise DataError(f"nor can those after it; the last: {last}. Check the files of the data set") from last
