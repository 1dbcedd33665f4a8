"""What an image has of a mask: few colours, in areas of one colour each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.decoding.reading import Reading
from trainer.data.errors import UnreadableImage
from trainer.data.image_files import FileImages, read_image

MOST_COLOURS = 16
"""Colours that a mask may have,"""
OF_MASK = 0.9
"""and the share of it that they make up at least: the rest are edges, as a lossy format leaves them;"""
PERHAPS = 0.5
"""or they alone so much, and with what is near to those of them that are no edges as much as that;"""
OF_IMAGE = 0.01
"""the share that they make up less of an image than of a mask of it, at least: one of a microscope is black, too."""
SIDE = 512
"""Pixels of a row, and of a column, that are looked at, evenly spaced: of a photograph a hundredth says as much."""
FEWEST_PIXELS = 256
"""Of which few colours say anything."""
OF_COLOUR = 0.01
"""The share of a mask that one of its colours has, or is taken for an edge's,"""
NEAR = 24
"""levels from one of these that a lossy format makes of it,"""
TEXTURED = 0.03
"""and the share that is far from them and changes from pixel to pixel, at most: more has what was cut out of a
photograph."""


@dataclass(frozen=True, slots=True)
class Colours:
    """Of one image."""

    height: int
    width: int
    share: float
    """That its MOST_COLOURS most frequent colours make up."""
    is_mask: bool
    """Whether it may be a mask."""
    main: frozenset[int]
    """Its colours that are no edges."""

    def of(self, other: Colours) -> bool:
        """Whether it may be a mask of that one: of its form, which has more colours."""
        alike = abs(self.height * other.width - self.width * other.height) <= 0.02 * self.height * other.width
        return alike and self.is_mask and self.share >= other.share + OF_IMAGE


def colours_of(levels: NDArray[np.uint8]) -> Colours:
    """Of an image, (H, W, 3)."""
    height, width = levels.shape[:2]
    down, across = max(1, height // SIDE), max(1, width // SIDE)
    packed = _packed(levels[::down, ::across])
    values, counts = np.unique(packed, return_counts=True)
    share = float(np.sort(counts)[-MOST_COLOURS:].sum() / packed.size)
    if share < PERHAPS or height * width < FEWEST_PIXELS or min(height, width) < 2:
        return Colours(height, width, share, is_mask=False, main=frozenset())
    main = values[counts >= OF_COLOUR * packed.size].tolist()
    # Each pixel with those to its right and below.
    three = [
        _packed(levels[top : height - 1 + top : down, left : width - 1 + left : across])
        for top, left in ((0, 0), (0, 1), (1, 0))
    ]
    here, right, below = three
    far = [_far(pixels, main) for pixels in three]
    is_few = share >= OF_MASK or (len(main) <= MOST_COLOURS and far[0].mean() <= 1 - OF_MASK)
    textured = np.logical_and.reduce([*far, here != right, here != below])
    return Colours(height, width, share, is_mask=bool(is_few and textured.mean() <= TEXTURED), main=frozenset(main))


def _packed(levels: NDArray[np.uint8]) -> NDArray[np.int32]:
    red, green, blue = np.moveaxis(levels.astype(np.int32), -1, 0)
    packed: NDArray[np.int32] = red << 16 | green << 8 | blue
    return packed


def _far(packed: NDArray[np.int32], colours: list[int]) -> NDArray[np.bool_]:
    """Which pixels are near none of the colours."""
    found = np.ones(packed.shape, dtype=np.bool_)
    for colour in colours:
        far = np.zeros(packed.shape, dtype=np.bool_)
        for shift in (16, 8, 0):
            far |= np.abs((packed >> shift & 255) - (colour >> shift & 255)) > NEAR
        found &= far
    return found


class Seen:
    """Images of a split that are read for their colours, each once."""

    def __init__(self, images: FileImages, tick: Callable[[], None]) -> None:
        self._images = images
        self._tick = tick
        self._colours: dict[int, Colours | None] = {}

    def colours(self, place: int) -> Colours | None:
        """Of the image at the place; None: it cannot be read, which is told elsewhere.

        Raises:
            OSError: the disk does not give it.
        """
        if place not in self._colours:
            self._tick()
            self._colours[place] = None
            with suppress(UnreadableImage):
                levels = read_image(self._images.folder, self._images.below(place), Reading(), place)
                self._colours[place] = colours_of(levels)
        return self._colours[place]

    def may_be_mask(self, place: int) -> bool:
        """Whether the image at the place may be a mask."""
        colours = self.colours(place)
        return colours is not None and colours.is_mask

    def is_mask_of(self, mask: int, image: int) -> bool:
        """Whether the one looks like a mask of the other."""
        one, other = self.colours(mask), self.colours(image)
        return one is not None and other is not None and one.of(other)
