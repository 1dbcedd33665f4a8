"""Masks as COCO writes them: polygons around what is filled, or runs of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Mask = NDArray[np.bool_]
Point = tuple[int, int]

_RIGHT_TURN = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}
"""The next direction clockwise, as x grows to the right and y downwards."""


def run_lengths(mask: Mask) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask (H, W): exact, whatever its form."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def polygons(mask: Mask) -> list[list[int]] | None:
    """The outlines of a mask (H, W) as COCO's polygons, [x, y, x, y, ...] each.

    None where COCO's own reading of them is another mask, as of one with a hole: polygons can only add.
    """
    drawn = [[number for point in loop for number in point] for loop in _loops(mask)]
    height, width = mask.shape
    read = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(drawn, height, width)))
    return drawn if np.array_equal(read, mask) else None


def _loops(mask: Mask) -> list[list[Point]]:
    """The corners of each closed line between pixels inside and outside, with the inside to the right."""
    padded = np.pad(mask, 1)
    # The pixel across a side by the direction in which the side is walked, and the corner where it starts.
    across = {
        (1, 0): (padded[:-2, 1:-1], (0, 0)),
        (0, 1): (padded[1:-1, 2:], (1, 0)),
        (-1, 0): (padded[2:, 1:-1], (1, 1)),
        (0, -1): (padded[1:-1, :-2], (0, 1)),
    }
    sides = {
        ((int(x) + start[0], int(y) + start[1]), direction)
        for direction, (other, start) in across.items()
        for y, x in np.argwhere(mask & ~other)
    }
    loops = []
    while sides:
        point, direction = min(sides)
        loop: list[Point] = []
        before = None
        while (point, direction) in sides:
            sides.remove((point, direction))
            if direction != before:
                loop.append(point)
            before = direction
            point = (point[0] + direction[0], point[1] + direction[1])
            # Right first: pixels that touch at a corner alone are walked around one by one.
            turned = _RIGHT_TURN[direction]
            direction = next(
                (each for each in (turned, direction, (-turned[0], -turned[1])) if (point, each) in sides), direction
            )
        loops.append(loop)
    return loops
