"""What an image has of a mask: few colours, or areas of one colour each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.decoding.reading import Reading, is_almost_black
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
"""The fewest pixels of which few colours say anything."""
OF_COLOUR = 0.01
"""The share of a mask that one of its colours has, or is taken for an edge's,"""
NEAR = 24
"""levels from one of these that a lossy format makes of it,"""
TEXTURED = 0.03
"""and the share that is far from them and changes from pixel to pixel, at most: more has what was cut out of a
photograph."""
FLAT = 0.6
"""The share of pixels that are as those to their right and below, exactly, of a mask of many objects, at least,"""
ROUGH = 0.03
"""and of those that are as none of the four beside them, at most: noise and texture are made of these;"""
LIKE = 64
"""levels that the mean of an image lies at most from each colour of what is no mask but the same picture in few
colours, as a page of black and white is of its scan;"""
POINTS = 64
"""of so many points a side;"""
FLATTER = 0.15
"""and the share of flat ones that it has more than the image that it is of."""


@dataclass(frozen=True, slots=True, eq=False)
class Colours:
    """The colours of one image."""

    height: int
    width: int
    share: float
    """That its MOST_COLOURS most frequent colours make up."""
    is_mask: bool
    """Whether it may be a mask."""
    main: frozenset[int]
    """Its colours that are no edges."""
    flat: float
    """The share of its pixels that are as those beside them,"""
    is_flat: bool
    """and whether it is made of such areas, of however many colours, as a mask of many objects is."""
    points: NDArray[np.uint8]
    """(POINTS, POINTS, 3) of it, evenly spaced."""

    def of(self, other: Colours, *, in_word: bool) -> bool:
        """Whether it may be a mask of that one: of its form, which has more colours, or is less flat where names say
        by a word that it is a mask."""
        alike = abs(self.height * other.width - self.width * other.height) <= 0.02 * self.height * other.width
        is_few = self.is_mask and self.share >= other.share + OF_IMAGE
        if in_word:
            return alike and (is_few or (self.is_flat and self.flat >= other.flat + FLATTER))
        return alike and is_few and not self._is_picture(other)

    def _is_picture(self, other: Colours) -> bool:
        """Whether it is that one in few colours."""
        packed = _packed(self.points)
        return all(
            np.abs(self.points[here].mean(axis=0) - other.points[here].mean(axis=0)).max() <= LIKE
            for colour in self.main
            if (here := packed == colour).any()
        )


def colours_of(levels: NDArray[np.uint8]) -> Colours:
    """The colours of an image, (H, W, 3)."""
    height, width = levels.shape[:2]
    rows, columns = (np.linspace(0, side - 1, POINTS).round().astype(np.int64) for side in (height, width))
    points = levels[np.ix_(rows, columns)]
    down, across = max(1, height // SIDE), max(1, width // SIDE)
    packed = _packed(levels[::down, ::across])
    values, counts = np.unique(packed, return_counts=True)
    share = float(np.sort(counts)[-MOST_COLOURS:].sum() / packed.size)
    if height * width < FEWEST_PIXELS or min(height, width) < 3:
        return Colours(height, width, share, is_mask=False, main=frozenset(), flat=0.0, is_flat=False, points=points)
    # Each pixel but those of the border with those beside it.
    here, right, below, left, above = (
        _packed(levels[1 + top : height - 1 + top : down, 1 + aside : width - 1 + aside : across])
        for top, aside in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
    )
    flat = float(((here == right) & (here == below)).mean())
    rough = float(((here != right) & (here != below) & (here != left) & (here != above)).mean())
    main = values[counts >= OF_COLOUR * packed.size].tolist()
    is_mask = False
    if share >= PERHAPS:
        far = [_far(pixels, main) for pixels in (packed, here, right, below)]
        is_few = share >= OF_MASK or (len(main) <= MOST_COLOURS and far[0].mean() <= 1 - OF_MASK)
        textured = np.logical_and.reduce([*far[1:], here != right, here != below])
        is_mask = bool(is_few and textured.mean() <= TEXTURED)
    is_flat = flat >= FLAT and rough <= ROUGH
    return Colours(height, width, share, is_mask, frozenset(main), flat, is_flat, points)


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


def glance(images: FileImages, place: int) -> NDArray[np.uint8]:
    """The image at the place, (H, W, 3): as it is read by default, or, if that is almost black, as a look at it needs:
    of 12 bits in 16 a photograph has as few levels as a mask.

    Raises:
        UnreadableImage, OSError: as `read_image`.
    """
    levels = read_image(images.folder, images.below(place), Reading(), place)
    if is_almost_black(levels):
        return read_image(images.folder, images.below(place), Reading("percentile"), place)
    return levels


class ImageColours:
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
                self._colours[place] = colours_of(glance(self._images, place))
        return self._colours[place]

    def may_be_mask(self, place: int) -> bool:
        """Whether the image at the place may be a mask."""
        colours = self.colours(place)
        return colours is not None and (colours.is_mask or colours.is_flat)

    def is_mask_of(self, mask: int, image: int, *, in_word: bool) -> bool:
        """Whether the one looks like a mask of the other; `in_word` says that names have a word for masks."""
        one, other = self.colours(mask), self.colours(image)
        return one is not None and other is not None and one.of(other, in_word=in_word)

    def are_of_one_kind(self, places: Sequence[int]) -> bool:
        """Whether most colours of the images at these places are in several of them: those of logos differ."""
        main = Counter(colour for place in places if (seen := self.colours(place)) for colour in seen.main)
        single = sum(count == 1 for count in main.values())
        return 2 * single <= len(main)
