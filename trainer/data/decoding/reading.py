"""How the image files of a split are read, and what is told of those in which something is lost by it.

An image that becomes almost black, or a band that is dropped, ends no run and spoils many: so each kind is told of at
the first image, and with numbers as more are read, until every image of the split was read once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from barlow_lab.specs.data_sets import ValueRange
from trainer.data.decoding.pages import MOST_PAGES, Pages

DARK = 64
"""Of 255: an image is almost black if 99.9 % of its levels are below. That is 5 % of white's light, and what 14 of 16
bits come to."""
NARROW = 32
"""An image of more than 8 bits uses few levels if fewer than these hold 99.8 % of it."""
FAR = 96
"""One level, or two, are far from all others of an image if so many levels between hold no more than one in ten
thousand of it, while they and the others, LEAST_OTHERS at least, hold one in a thousand each: as by a value for no
data, which takes up the range where that is scaled, as of more than 8 bits, or of any by `percentile`. Edges of what is
cut out, of letters and of digits lie between, as do the flanks of stars and of what is overexposed."""
LEAST_OTHERS = 8
"""The least number of other levels: with fewer it is a mask or a drawing."""
FEW_LEVELS = 64
SEE = "docs/data-sets.md, When images are black"
SEE_TURNED = "docs/data-sets.md, What a set is for"


@dataclass(slots=True)
class Losses:
    """What is found of one image while it is decoded."""

    bits: int | None = None
    """The file has so many of 9 to 15 bits, and they were read as 16."""
    negative: bool = False
    """Its smallest value is white, and was read as black."""
    dropped: str | None = None
    """What it has beside grey, or red, green and blue."""
    orientation: int = 1
    """Exif's orientation, by which the image was turned upright."""
    pages: Pages = field(default_factory=Pages)
    """The first of them is read."""
    animation: bool = False
    """It has several frames, of which the first is read."""
    zeros: int = 0
    """So many at the end of its file, black from within a row on, may stand for what was never written."""
    sixteen: bool = False
    """It has more than 8 bits a channel,"""
    high_byte_alone: bool = False
    """and is coloured."""
    merged: bool = False
    """Several of its values came to one level; of colours: that may be."""
    not_a_number: int = 0
    """So many of its values are NaN,"""
    infinite: int = 0
    """and so many are infinite."""


class Reading:
    """What a split's image files are read by; any thread may take an image in."""

    def __init__(
        self,
        value_range: ValueRange = "dtype",
        *,
        whose: str = "",
        count: int = 0,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """`warn` is told of losses in the split of `count` images that is called `whose`."""
        self.value_range = value_range
        self.of_boxes = False
        """Whether what lies in the images counts: it is told of those that Exif turns and whose size does not say that
        boxes are of the image as it is turned."""
        self._whose = whose
        self._known = np.zeros(count, dtype=np.bool_)
        self._warn = warn
        self._turn = threading.Lock()
        self._seen = 0
        self._tell_at = 8
        self._counts: dict[str, int] = {}
        self._words: dict[str, str] = {}
        self._told: dict[str, int] = {}

    def anew(self) -> Reading:
        """The same with nothing seen yet; it warns nobody."""
        again = Reading(self.value_range, whose=self._whose, count=len(self._known))
        again.of_boxes = self.of_boxes
        return again

    def asks_for(self, index: int) -> bool:
        """Whether this image was not taken in yet."""
        return self._seen < len(self._known) and not self._known[index]

    def take(self, index: int, name: str, levels: NDArray[np.uint8], losses: Losses) -> None:
        """The image, (H, W, 3), was read; it counts once."""
        height, width = levels.shape[:2]
        found = _kinds(name, levels, losses, self.value_range)
        if self.of_boxes and (losses.orientation in (2, 3, 4) or (losses.orientation > 4 and height == width)):
            found["turned"] = (
                f"are turned by their Exif orientation, first {name} ({losses.orientation}), and their size does not "
                "say whether their boxes and masks are: these are taken as of the image as viewers show it, turned. "
                f"Are they of the pixels as stored, take the orientation out of the files ({SEE_TURNED})"
            )
        with self._turn:
            if not self.asks_for(index):
                return
            self._known[index] = True
            self._seen += 1
            for kind, words in found.items():
                self._counts[kind] = self._counts.get(kind, 0) + 1
                self._words.setdefault(kind, words)
            if self._seen in (self._tell_at, len(self._known)):
                self._tell_at *= 8
                due = set(self._counts)
            else:
                due = {kind for kind in found if kind not in self._told}
            told = [self._said(kind) for kind in self._counts if kind in due and self._grown(kind)]
        if self._warn is not None:
            for said in told:
                self._warn(said)

    def tally(self) -> list[str]:
        """What there is to tell by now."""
        with self._turn:
            return [self._said(kind) for kind in self._counts]

    def _grown(self, kind: str) -> bool:
        before, self._told[kind] = self._told.get(kind, 0), self._counts[kind]
        return self._counts[kind] > before

    def _said(self, kind: str) -> str:
        return f"{self._whose}: {self._counts[kind]:,} of {self._seen:,} images read {self._words[kind]}"


def _kinds(name: str, levels: NDArray[np.uint8], losses: Losses, value_range: ValueRange) -> dict[str, str]:
    """The losses of an image by kind, in words that follow a number of images."""
    found = {}
    if losses.bits is not None:
        found[f"{losses.bits} bits"] = (
            f"hold {losses.bits} bits a sample and are read as 16 bits, first {name}: their white is level "
            f"{(2**losses.bits - 1) >> 8} of 255. Say `value_range: file` for the data set in datasets.yaml ({SEE})"
        )
    elif is_almost_black(levels):
        found["dark"] = (
            f"are almost black, first {name}: 99.9 % of its levels are below {DARK} of 255, the highest is "
            f"{levels.max()}{_advice(value_range)}. Are they masks, whose values are numbers of objects or classes, "
            f"take them out instead ({SEE})"
        )
    elif losses.sixteen or value_range == "percentile":
        used = _levels_of_most(levels)
        is_far = used[-1] - used[0] >= NARROW
        is_told_as_coarse = losses.high_byte_alone and value_range == "percentile"
        if len(used) < NARROW and losses.sixteen and not is_told_as_coarse and (losses.merged or not is_far):
            found["narrow"] = (
                f"have more than 8 bits and use few of the 256 levels, first {name}: {len(used)}, from {used[0]} to "
                f"{used[-1]}{_of_no_data(value_range) if is_far else _advice(value_range)} ({SEE})"
            )
        elif said := _far_level(levels):
            found["far"] = f"have a value far from all others, first {name}: {said}{_of_no_data(value_range)} ({SEE})"
    if losses.not_a_number or losses.infinite:
        found["not finite"] = (
            f"have values that are no finite numbers, first {name}: {losses.not_a_number:,} are no number (NaN) and "
            f"read as the smallest value, {losses.infinite:,} are infinite and read as the smallest or the largest. "
            f"Write the files with numbers there ({SEE})"
        )
    if losses.zeros:
        found["zeros"] = (
            f"end in zeros and turn black within a row, first {name}: the last {losses.zeros:,} bytes of its file. Is "
            "it an unfinished download or copy, fetch it again"
        )
    if losses.negative:
        found["negative"] = (
            f"are read as negatives, first {name}: by their tag WhiteIsZero the smallest value is white. Say "
            f"`value_range: file` for the data set in datasets.yaml ({SEE})"
        )
    if losses.dropped is not None:
        found["dropped"] = (
            f"have a band that is dropped, first {name}: {losses.dropped}. Grey, or red, green and blue, are read; "
            f"write the files without the band, or with what is to be seen in these ({SEE})"
        )
    or_more = " or more" if losses.pages.said >= MOST_PAGES else ""
    if losses.pages.here > 1:
        found["pages"] = (
            f"hold several pages, first {name}: {losses.pages.here:,}{or_more}; the first one is read; write each page "
            f"as a file of its own ({SEE})"
        )
    elif losses.pages.said > 1:
        found["pages said"] = (
            f"say that they are stacks of several planes, first {name}: {losses.pages.said:,}{or_more}, and have one, "
            f"which is read; if others are missing, write each plane as a file of its own ({SEE})"
        )
    if losses.animation:
        found["animation"] = (
            f"are animations, first {name}: the first frame is read; write each frame that is meant as a file of its "
            f"own ({SEE})"
        )
    spread = losses.high_byte_alone and losses.merged and value_range == "percentile" and "far" not in found
    if spread and (count := len(np.unique(levels))) < FEW_LEVELS:
        found["coarse"] = (
            f"have few levels, first {name}: {count}, for of colours with 16 bits the high byte alone is read. Write "
            f"the files with 8 bits a channel, spread over all of their range ({SEE})"
        )
    return found


def is_almost_black(levels: NDArray[np.uint8]) -> bool:
    """Whether 99.9 % of an image's levels are below DARK."""
    return bool(np.count_nonzero(levels >= DARK) * 1000 < levels.size)


def _levels_of_most(levels: NDArray[np.uint8]) -> list[int]:
    """The fewest levels that hold 99.8 % of an image, from the lowest to the highest."""
    counts = np.bincount(levels.reshape(-1), minlength=256)
    order = np.argsort(-counts, kind="stable")
    needed = int(np.searchsorted(np.cumsum(counts[order]) * 1000, levels.size * 998)) + 1
    return sorted(order[:needed].tolist())


def _far_level(levels: NDArray[np.uint8]) -> str | None:
    """How much of an image is one level, or two, FAR from the others, and which these are; None: none is."""
    counts = np.bincount(levels.reshape(-1), minlength=256)
    used = np.flatnonzero(counts)
    low, high = int(used[0]), int(used[-1])
    for first, lowest, highest in ((low, low + 1 + FAR, high), (high - 1, low, high - 1 - FAR)):
        if lowest > highest:
            continue
        there, others = int(counts[first : first + 2].sum()), int(counts[lowest : highest + 1].sum())
        within = used[(used >= lowest) & (used <= highest)]
        between = levels.size - there - others
        if min(there, others) * 1000 >= levels.size >= between * 10_000 and len(within) >= LEAST_OTHERS:
            return (
                f"{100 * there / levels.size:.1f} % of its levels are {low if first == low else high}, and the others "
                f"{within[0]} to {within[-1]} of 255"
            )
    return None


def _of_no_data(value_range: ValueRange) -> str:
    """What to do where a value lies far from the others."""
    then = (
        "" if value_range == "percentile" else ", and say `value_range: percentile` for the data set in datasets.yaml"
    )
    return (
        ". If a value far from the others stands for no data there, as 65535 or -9999, write the files with one within "
        f"the range of the others in its place{then}"
    )


def _advice(value_range: ValueRange) -> str:
    """Which `value_range` to try in place of this one for values that use a part of their range."""
    if value_range == "percentile":
        return ""
    or_file = ", or `file` if the files tell that part" if value_range == "dtype" else ""
    return (
        ". If its values use a part of their range only, say `value_range: percentile` for the data set in "
        f"datasets.yaml{or_file}"
    )
