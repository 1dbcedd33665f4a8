"""Where the masks of COCO's JSON lie, as far as that is quickly said: boxes are compared with it."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.formats.run_lengths import uncompressed, whole_numbers

MOST_RUNS = 1 << 20
"""Run lengths of a file, or characters of compressed ones, that are looked at for where boxes should be: a second."""
MOST = 1 << 16
"""Pixels from the corner of an image; what has more is no mask."""
_NONE = (math.nan, math.nan, math.nan, math.nan)


class Extents:
    """The extents of the masks of objects, one after the other."""

    def __init__(self) -> None:
        self._edges = array("f")
        self.of_lengths = array("b")
        """Whether each is of run lengths in a list, which programs that know no COCO write."""
        self._runs_left = MOST_RUNS

    def add(self, segmentation: Any) -> None:
        """Take in the mask of one more object, whatever it is."""
        try:
            extent = self._extent(segmentation)
        except (ValueError, TypeError, LookupError, ArithmeticError):  # whoever asks for masks is told what they lack
            extent = _NONE
        left, top, right, bottom = extent
        within = left >= -MOST and top >= -MOST and right <= MOST and bottom <= MOST
        self._edges.extend(extent if within else _NONE)
        self.of_lengths.append(isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list))

    def boxes(self) -> NDArray[np.float32]:
        """(k, 4): left, top, right, bottom; NaN for an object without a mask, or with one that was not looked at."""
        return np.array(self._edges, dtype=np.float32).reshape(-1, 4)

    def _extent(self, segmentation: Any) -> tuple[float, float, float, float]:
        if not isinstance(segmentation, dict):
            return _extent_of_polygons(segmentation)
        self._runs_left -= len(segmentation["counts"])
        return _extent_of_runs(segmentation) if self._runs_left >= 0 else _NONE


def _extent_of_polygons(polygons: Any) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the polygons that are some.

    Raises:
        ValueError, TypeError, ArithmeticError: there is none.
    """
    lefts, tops, rights, bottoms = [], [], [], []
    for points in polygons:
        if len(points) >= 6 and len(points) % 2 == 0:
            across, down = points[0::2], points[1::2]
            lefts.append(min(across))
            tops.append(min(down))
            rights.append(max(across))
            bottoms.append(max(down))
    return float(min(lefts)), float(min(tops)), float(max(rights)), float(max(bottoms))


def _extent_of_runs(segmentation: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a mask of run lengths.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: it is none, or shows nothing.
    """
    height, counts = int(segmentation["size"][0]), segmentation["counts"]
    runs = np.array(uncompressed(counts) if isinstance(counts, str) else whole_numbers(counts), dtype=np.int64)
    if height < 1 or (runs < 0).any():
        raise ValueError("run lengths are numbers of pixels")
    ends = np.cumsum(runs)[1::2][runs[1::2] > 0]
    firsts, lasts = ends - runs[1::2][runs[1::2] > 0], ends - 1
    left, right = float((firsts // height).min()), float((lasts // height).max() + 1)
    if (firsts // height != lasts // height).any():  # on from the foot of a column at the head of the next
        return left, 0.0, right, float(height)
    return left, float((firsts % height).min()), right, float((lasts % height).max() + 1)
