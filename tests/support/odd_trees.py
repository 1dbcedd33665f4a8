"""Trees of image files some of which cannot be read, for tests: each image tells its class and number by its colour."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 3


def colour(number: int) -> tuple[int, int, int]:
    """Of the image with this number in its split: red says the class, green the number."""
    return (60 * (number % CLASSES), 5 * number, 200)


def make_split(folder: Path, count: int, unreadable: Collection[int] = ()) -> None:
    """`count` PNGs of 8x8 px in three class folders; image i of the data set has colour(i) or is cut short
    before a byte of its own: no two are copies."""
    for number in range(count):
        path = folder / f"class-{number % CLASSES}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), colour(number), np.uint8)).save(path)
        if number in unreadable:
            path.write_bytes(path.read_bytes()[:39] + bytes([number]))
