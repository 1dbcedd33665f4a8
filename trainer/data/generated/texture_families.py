"""Families of textures: patterns of one structure each, drawn on a square of any side and coloured at random.

Lengths are in pixels and do not grow with the side: a larger square shows more of the pattern, not a larger one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]

_SCALARS = 32


class Grid(NamedTuple):
    """Coordinates of the pixels of a square, each (side, side), and that of its centre along either axis."""

    x: Plane
    y: Plane
    centre: float


@cache
def grid(side: int) -> Grid:
    """The grid of a square of `side` pixels."""
    x: Plane = np.tile(np.arange(side, dtype=np.float64), (side, 1))
    return Grid(x, x.T, (side - 1) / 2)


class Draws:
    """The numbers of one texture, all in [0, 1): named scalars in order of use, and two fields of (side, side)."""

    def __init__(self, numbers: Plane, side: int) -> None:
        """`numbers` are `draws_for(side)` uniform ones."""
        self.side = side
        self.grid = grid(side)
        self._scalars: Iterator[float] = iter(numbers[:_SCALARS].tolist())
        self.noise, self.field = (_triangular(half, side) for half in np.split(numbers[_SCALARS:], 2))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._scalars)


def draws_for(side: int) -> int:
    """How many uniform numbers a texture of `side` pixels takes."""
    return _SCALARS + 4 * side * side


def _triangular(numbers: Plane, side: int) -> Plane:
    """Symmetric noise of mean 0 and variance 1, (side, side), from twice as many uniform numbers."""
    first, second = numbers.reshape(2, side, side)
    return (first + second - 1.0) * math.sqrt(6.0)


def _wave(draws: Draws, angle: float, period: float) -> Plane:
    phase = draws.between(0.0, 2 * math.pi)
    along = draws.grid.x * math.cos(angle) + draws.grid.y * math.sin(angle)
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
    # Six pixels of 32: the rings' centre stays near that of a square of any side.
    reach = 6.0 * draws.side / 32
    x = draws.grid.centre + draws.between(-reach, reach)
    y = draws.grid.centre + draws.between(-reach, reach)
    phase = draws.between(0.0, 2 * math.pi)
    distance = np.hypot(draws.grid.x - x, draws.grid.y - y)
    return np.sin(distance * (2 * math.pi / draws.between(4.0, 9.0)) + phase)


def _noise(sigma_low: float, sigma_high: float) -> Callable[[Draws], Plane]:
    def pattern(draws: Draws) -> Plane:
        sigma = draws.between(sigma_low, sigma_high)
        smooth = _gaussian_matrix(round(sigma, 1), draws.side)
        return smooth @ draws.field @ smooth.T

    return pattern


@cache
def _gaussian_matrix(sigma: float, side: int) -> Plane:
    """Blur along one axis as a (side, side) matrix, wrapping around."""
    x, y, _ = grid(side)
    distance = np.minimum((x - y) % side, (y - x) % side)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    rows: Plane = weights.sum(axis=1, keepdims=True)
    return weights / rows


Family = Callable[[Draws], Plane]
"""Draws a pattern, (side, side), of any mean and spread."""

FAMILIES: dict[str, Family] = {
    "horizontal stripes": _stripes(90.0),
    "vertical stripes": _stripes(0.0),
    "diagonal stripes": _diagonal,
    "checks": _checks,
    "dots": _dots,
    "rings": _rings,
    "coarse noise": _noise(2.0, 3.0),
    "fine noise": _noise(0.5, 0.8),
}


def plain(draws: Draws) -> Plane:
    """No pattern at all: of such a square colour, shading and noise are left."""
    return np.zeros((draws.side, draws.side))


def painted(family: Family, draws: Draws) -> Plane:
    """A square of a texture in colours, contrast, shading and noise of its own: (side, side, 3), 0..1 and beyond."""
    pattern = family(draws)
    pattern = (pattern - pattern.mean()) / (pattern.std() + 1e-9)
    if draws.between(0.0, 1.0) < 0.5:
        pattern = -pattern
    middle = np.array([draws.between(0.2, 0.8) for _ in range(3)])
    colour = np.array([draws.between(-1.0, 1.0) for _ in range(3)])
    colour *= draws.between(0.08, 0.25) / (np.abs(colour).max() + 1e-9)
    shade_angle = draws.between(0.0, 2 * math.pi)
    x, y, centre = draws.grid
    slope = draws.between(0.0, 0.25) / centre
    shading = slope * ((x - centre) * math.cos(shade_angle) + (y - centre) * math.sin(shade_angle))
    noise = draws.between(0.01, 0.05) * draws.noise
    image: Plane = middle + pattern[..., None] * colour + (shading + noise)[..., None]
    return image


def levels(image: Plane) -> NDArray[np.uint8]:
    """Intensities, 0..1 and beyond, as bytes."""
    quantised: NDArray[np.uint8] = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    return quantised
