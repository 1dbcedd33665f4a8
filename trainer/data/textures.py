"""`textures`: generated 32x32 images whose class is the texture family and whose looks are nuisance.

Colours, contrast, phase, frequency, angle within the family, shading and noise are drawn anew for each image, so that
pixels and their statistics say next to nothing of the class: it is in the structure alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from trainer.data.datasets import ArrayDataSet
from trainer.data.keyed import Purpose, uniforms

SIDE = 32
SPLITS = {"train": 4000, "test": 1000}

_FIELD_DRAWS = SIDE * SIDE
_SCALARS = 32
Plane = NDArray[np.float64]
_X: Plane = np.tile(np.arange(SIDE, dtype=np.float64), (SIDE, 1))
_Y: Plane = _X.T
_CENTRE = (SIDE - 1) / 2


class Draws:
    """The numbers of one image, all in [0, 1): named scalars in order of use, and two fields of (SIDE, SIDE)."""

    def __init__(self, numbers: Plane) -> None:
        self._scalars: Iterator[float] = iter(numbers[:_SCALARS].tolist())
        self.noise = _triangular(numbers[_SCALARS : _SCALARS + 2 * _FIELD_DRAWS])
        self.field = _triangular(numbers[_SCALARS + 2 * _FIELD_DRAWS :])

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._scalars)


def _triangular(numbers: Plane) -> Plane:
    """Symmetric noise of mean 0 and variance 1, (SIDE, SIDE), from twice as many uniform numbers."""
    first, second = numbers.reshape(2, SIDE, SIDE)
    return (first + second - 1.0) * math.sqrt(6.0)


def _wave(draws: Draws, angle: float, period: float) -> Plane:
    phase = draws.between(0.0, 2 * math.pi)
    along = _X * math.cos(angle) + _Y * math.sin(angle)
    return np.sin(along * (2 * math.pi / period) + phase)


def _stripes(degrees: float) -> Callable[[Draws], Plane]:
    def pattern(draws: Draws) -> Plane:
        angle = math.radians(degrees + draws.between(-15.0, 15.0))
        return _wave(draws, angle, draws.between(4.0, 10.0))

    return pattern


def _diagonal(draws: Draws) -> Plane:
    # Both diagonals are one family: the views are mirrored, so they could not be told apart.
    return _stripes(45.0 if draws.between(0.0, 1.0) < 0.5 else 135.0)(draws)


def _checks(draws: Draws) -> Plane:
    angle = math.radians(draws.between(-15.0, 15.0))
    period = draws.between(6.0, 12.0)
    return np.tanh(4.0 * _wave(draws, angle, period) * _wave(draws, angle + math.pi / 2, period))


def _dots(draws: Draws) -> Plane:
    angle = draws.between(0.0, math.pi / 2)
    period = draws.between(6.0, 11.0)
    hills = _wave(draws, angle, period) + _wave(draws, angle + math.pi / 2, period)
    return np.tanh(4.0 * (hills - 0.9))


def _rings(draws: Draws) -> Plane:
    x = _CENTRE + draws.between(-6.0, 6.0)
    y = _CENTRE + draws.between(-6.0, 6.0)
    phase = draws.between(0.0, 2 * math.pi)
    return np.sin(np.hypot(_X - x, _Y - y) * (2 * math.pi / draws.between(4.0, 9.0)) + phase)


def _noise(sigma_low: float, sigma_high: float) -> Callable[[Draws], Plane]:
    def pattern(draws: Draws) -> Plane:
        sigma = draws.between(sigma_low, sigma_high)
        smooth = _gaussian_matrix(round(sigma, 1))
        return smooth @ draws.field @ smooth.T

    return pattern


@cache
def _gaussian_matrix(sigma: float) -> Plane:
    """Blur along one axis as a (SIDE, SIDE) matrix, wrapping around."""
    distance = np.minimum((_X - _Y) % SIDE, (_Y - _X) % SIDE)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    rows: Plane = weights.sum(axis=1, keepdims=True)
    return weights / rows


FAMILIES: dict[str, Callable[[Draws], Plane]] = {
    "horizontal stripes": _stripes(90.0),
    "vertical stripes": _stripes(0.0),
    "diagonal stripes": _diagonal,
    "checks": _checks,
    "dots": _dots,
    "rings": _rings,
    "coarse noise": _noise(2.0, 3.0),
    "fine noise": _noise(0.5, 0.8),
}
CLASSES = tuple(FAMILIES)


def texture(seed: int, index: int) -> NDArray[np.uint8]:
    """Image `index` of the endless sequence of `seed`, (32, 32, 3) uint8 RGB; its class is index modulo 8."""
    draws = Draws(uniforms(Purpose.TEXTURE, seed, index, count=_SCALARS + 4 * _FIELD_DRAWS))
    pattern = FAMILIES[CLASSES[index % len(CLASSES)]](draws)
    pattern = (pattern - pattern.mean()) / (pattern.std() + 1e-9)
    if draws.between(0.0, 1.0) < 0.5:
        pattern = -pattern
    middle = np.array([draws.between(0.2, 0.8) for _ in range(3)])
    colour = np.array([draws.between(-1.0, 1.0) for _ in range(3)])
    colour *= draws.between(0.08, 0.25) / (np.abs(colour).max() + 1e-9)
    shade_angle = draws.between(0.0, 2 * math.pi)
    slope = draws.between(0.0, 0.25) / _CENTRE
    shading = slope * ((_X - _CENTRE) * math.cos(shade_angle) + (_Y - _CENTRE) * math.sin(shade_angle))
    noise = draws.between(0.01, 0.05) * draws.noise
    image = middle + pattern[..., None] * colour + (shading + noise)[..., None]
    levels: NDArray[np.uint8] = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    return levels


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
