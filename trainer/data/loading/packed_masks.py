"""Masks of an image while it waits for its step: a batch and those ahead of it hold many images of many objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of an image that a mask covers, a bit a pixel, row by row."""

    rows: slice
    columns: slice
    bits: NDArray[np.uint8]


class PackedMasks:
    """The masks of an image's objects."""

    def __init__(self, masks: NDArray[np.bool_]) -> None:
        """`masks` (k, H, W); nothing of them is kept."""
        self._size = masks.shape[1:]
        self._parts = [_packed(mask) for mask in masks]

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(part.bits.nbytes for part in self._parts)

    def unpacked(self, places: Sequence[int]) -> NDArray[np.bool_]:
        """The masks (n, H, W) of the objects at `places`."""
        masks = np.zeros((len(places), *self._size), dtype=np.bool_)
        for mask, place in zip(masks, places, strict=True):
            part = self._parts[place]
            width = part.columns.stop - part.columns.start
            mask[part.rows, part.columns] = np.unpackbits(part.bits, axis=1, count=width)
        return masks


def _packed(mask: NDArray[np.bool_]) -> _Part:
    rows = _covered(mask, 1)
    columns = _covered(mask[rows], 0)
    return _Part(rows, columns, np.packbits(mask[rows, columns], axis=1))


def _covered(mask: NDArray[np.bool_], across: int) -> slice:
    """The first to the last row or column that has any, looked at `across` the other axis."""
    there = np.flatnonzero(mask.any(axis=across))
    return slice(int(there[0]), int(there[-1]) + 1) if len(there) else slice(0, 0)
