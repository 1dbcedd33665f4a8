"""`textures`: generated 32x32 images whose class is the texture family and whose looks are nuisance.

Colours, contrast, phase, frequency, angle within the family, shading and noise are drawn anew for each image, so that
pixels and their statistics say next to nothing of the class: it is in the structure alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.data.datasets import ArrayDataSet
from trainer.data.generated.texture_families import FAMILIES, Draws, draws_for, levels, painted
from trainer.data.keyed import Purpose, uniforms

SIDE = 32
SPLITS = {"train": 4000, "test": 1000}
CLASSES = tuple(FAMILIES)


def texture(seed: int, index: int) -> NDArray[np.uint8]:
    """Image `index` of the endless sequence of `seed`, (32, 32, 3) uint8 RGB; its class is index modulo 8."""
    draws = Draws(uniforms(Purpose.TEXTURE, seed, index, count=draws_for(SIDE)), SIDE)
    return levels(painted(FAMILIES[CLASSES[index % len(CLASSES)]], draws))


_opened: dict[tuple[str, int], ArrayDataSet] = {}


def open_textures(split: str, seed: int = 0, *, tick: Callable[[], None] = lambda: None) -> ArrayDataSet:
    """Split `train` (4,000 images) or `test` (1,000), generated in memory; the classes are balanced.

    `tick` is called for every image.
    """
    if (split, seed) not in _opened:
        _opened[split, seed] = _generated(split, seed, tick)
    return _opened[split, seed]


def _generated(split: str, seed: int, tick: Callable[[], None]) -> ArrayDataSet:
    first = 0 if split == "train" else SPLITS["train"]
    indices = range(first, first + SPLITS[split])
    images = np.empty((len(indices), SIDE, SIDE, 3), dtype=np.uint8)
    for row, index in enumerate(indices):
        images[row] = texture(seed, index)
        tick()
    labels = np.array([index % len(CLASSES) for index in indices], dtype=np.int64)
    return ArrayDataSet(images, labels, CLASSES)
