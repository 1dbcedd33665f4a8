"""Whether two pictures are one by their pixels: in fewer of them, in a part, or with something drawn on it."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
"""Points a side that are compared,"""
ALIKE = 0.9
"""and correlate so at least,"""
NEARLY_THE_SAME = 0.95
"""or so where it is equal names alone that bring the two together: X-rays of two patients are alike, too."""
STANDS_OUT = 16
"""Levels from an image's median of the pixels that are no ground: dark ones are in all channels of a microscope;"""
CLOSE = 12
"""a lossy format moves one by so many,"""
MOST_PIXELS_CLOSE = 0.6
"""and so many of them are left by what is drawn on a picture."""
FINER = 4
"""Parts of a point by which a part of an image is moved over it,"""
LARGEST_OF_PART = 2
"""of which a side is at most so many times as long,"""
LONGEST = 2
"""and so the part's own sides of each other."""
MOST_LOOKED_AT = 256
"""Pixels a side that are compared for that."""


def is_copy(small: NDArray[np.uint8], large: NDArray[np.uint8], alike: float = ALIKE) -> bool:
    """Whether the one is the other with fewer pixels: of its form, or the middle of it."""
    (height, width), (rows, columns) = small.shape[:2], large.shape[:2]
    if height * width >= rows * columns:
        return False
    scale = min(rows / height, columns / width)
    middle = _middle(large, round(scale * height), round(scale * width))
    return _correlation(small, middle) >= alike


def is_drawn_on(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether the two are one picture, of one size, but for what is drawn on either."""
    if one.shape != other.shape or _correlation(one, other) < NEARLY_THE_SAME:
        return False
    steps = tuple(slice(None, None, max(1, side // MOST_LOOKED_AT)) for side in one.shape[:2])
    levels = [each[steps].astype(np.int16) for each in (one, other)]
    stands_out = np.logical_or.reduce(
        [(np.abs(each - np.median(each, axis=(0, 1))) > STANDS_OUT).any(axis=-1) for each in levels]
    )
    close = (np.abs(levels[0] - levels[1]) <= CLOSE).all(axis=-1)
    return bool(stands_out.any() and close[stands_out].mean() >= MOST_PIXELS_CLOSE)


def is_part_of(small: NDArray[np.uint8], large: NDArray[np.uint8]) -> bool:
    """Whether the one is cut out of the other, pixel for pixel or as large a part as has its form."""
    (height, width), (rows, columns) = small.shape[:2], large.shape[:2]
    if max(height, width) > LONGEST * min(height, width) or height * width >= rows * columns:
        return False
    fine = FINER * SIDE / min(height, width)
    one = _grey(small, round(fine * height), round(fine * width))
    for scale in {1.0, min(rows / height, columns / width)}:
        other = _grey(large, round(fine * rows / scale), round(fine * columns / scale))
        if any(of < side or of > LARGEST_OF_PART * side for of, side in zip(other.shape, one.shape, strict=True)):
            continue
        # Means of squares of FINER points, FINER apart, from each point on where the part may begin.
        blurred = [sliding_window_view(each, (FINER, FINER)).mean(axis=(2, 3)) for each in (one, other)]
        parts = sliding_window_view(blurred[1], blurred[0].shape)[:, :, ::FINER, ::FINER]
        wanted = blurred[0][::FINER, ::FINER] - blurred[0][::FINER, ::FINER].mean()
        deviations, deviation = parts.std(axis=(2, 3)), wanted.std()
        alike = (parts * wanted).mean(axis=(2, 3)) >= NEARLY_THE_SAME * deviations * deviation
        if deviation >= 1 and (alike & (deviations >= 1)).any():  # less has what is of one colour
            return True
    return False


def _middle(levels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    top, left = (levels.shape[0] - height) // 2, (levels.shape[1] - width) // 2
    return levels[top : top + height, left : left + width]


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    points = [_grey(each, SIDE, SIDE).reshape(-1) for each in (one, other)]
    if min(each.std() for each in points) < 1:  # of one colour: alike to all of it
        return 0.0
    return float(np.corrcoef(points[0], points[1])[0, 1])


def _grey(levels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    grey = Image.fromarray(levels).convert("L").resize((max(1, width), max(1, height)), Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.float32)
