"""Where the masks of COCO's JSON lie, as far as that is quickly said: boxes are compared with it."""

from __future__ import annotations

import itertools
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
_Extent = tuple[float, float, float, float]
"""Left, top, right, bottom."""
_NONE: _Extent = (math.nan, math.nan, math.nan, math.nan)


class Extents:
    """The extents of the masks of objects, one after the other."""

    def __init__(self) -> None:
        self._edges = array("f")
        self.of_lengths = array("b")
        """Whether each is of run lengths in a list, which programs that know no COCO write."""
        self.are_rectangles = array("b")
        """Whether each fills its extent: an upright rectangle, as a box is."""
        self._runs_left = MOST_RUNS

    def add(self, segmentation: Any) -> None:
        """Take in the mask of one more object, whatever it is."""
        try:
            extent, is_rectangle = self._extent(segmentation)
        except (ValueError, TypeError, LookupError, ArithmeticError):  # whoever asks for masks is told what they lack
            extent, is_rectangle = _NONE, False
        left, top, right, bottom = extent
        within = left >= -MOST and top >= -MOST and right <= MOST and bottom <= MOST
        self._edges.extend(extent if within else _NONE)
        self.are_rectangles.append(is_rectangle and within)
        self.of_lengths.append(isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list))

    def boxes(self) -> NDArray[np.float32]:
        """(k, 4): left, top, right, bottom; NaN for an object without a mask, or with one that was not looked at."""
        return np.array(self._edges, dtype=np.float32).reshape(-1, 4)

    def _extent(self, segmentation: Any) -> tuple[_Extent, bool]:
        if not isinstance(segmentation, dict):
            extent = _extent_of_polygons(segmentation)
            return extent, _is_upright(segmentation, extent)
        self._runs_left -= len(segmentation["counts"])
        return _extent_of_runs(segmentation) if self._runs_left >= 0 else (_NONE, False)


def _extent_of_polygons(polygons: Any) -> _Extent:
    """Of the polygons that are some.

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


def _is_upright(polygons: Any, extent: _Extent) -> bool:
    """Whether it is one polygon of the four corners of its extent, closed or not."""
    points = polygons[0]
    if len(polygons) != 1 or len(points) not in (8, 10):
        return False
    left, top, right, bottom = extent
    corners = {(float(x), float(y)) for x, y in zip(points[0::2], points[1::2], strict=True)}
    # A diagonal is no side: each corner shares a coordinate with the next one.
    path = zip(points[0::2], points[1::2], strict=True)
    along = all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(path))
    return along and corners == {(left, top), (right, top), (right, bottom), (left, bottom)}


def _extent_of_runs(segmentation: dict[str, Any]) -> tuple[_Extent, bool]:
    """That of a mask of run lengths, and whether it is filled.

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
        extent = left, 0.0, right, float(height)
    else:
        extent = left, float((firsts % height).min()), right, float((lasts % height).max() + 1)
    area = (extent[2] - extent[0]) * (extent[3] - extent[1])
    return extent, int((ends - firsts).sum()) == area
