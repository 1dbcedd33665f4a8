"""Images of one split that are copies of images of another: found by names and sizes of files, and by their content.

Names and sizes alone say little: images of a format without compression are of one size, and most sets number theirs.
So what agrees in them is compared byte by byte, as far as `MOST_COMPARED` goes.
"""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.data.image_files import FileImages

MOST_COMPARED = 256
"""Judged images of which the content is compared, drawn among those that may be copies."""
MOST_OF_A_SIZE = 8
"""Files of its size with which an image is compared that has the name of none of them."""
SHARE = 0.01
"""From which on images are told that have another's content and not its name: published sets have a few."""


def copies_of_files(
    learned: FileImages,
    judged: FileImages,
    in_question: NDArray[np.bool_],
    first: int,
    tick: Callable[[], None],
    *,
    of_one: str,
) -> str | None:
    """What to say of copies among the judged images `in_question`, (n,), as many as are used: None where none is found.
    Of those that are learned from the `first` are used; `of_one` says what one of them is."""
    ours, theirs = _Ends(learned, first, tick), _Ends(judged, len(in_question), tick)
    in_question = in_question & (theirs.sizes > 0)
    named = np.flatnonzero(in_question & np.isin(theirs.names, ours.names))
    found, compared = _compare(ours, theirs, _drawn(named), tick)
    if found:
        if compared == len(named):
            return f"{found:,} {'has' if found == 1 else 'have'} name, size and content {of_one}"
        return f"{len(named):,} have name and size {of_one}, and its content too in {found:,} of {compared:,} compared"
    sized = np.flatnonzero(in_question & np.isin(theirs.sizes, ours.sizes))
    found, compared = _compare(ours, theirs, _drawn(sized), tick)
    if found and found >= SHARE * compared:
        return f"{found:,} of {compared:,} that were compared have the content {of_one} and another name"
    return None


class _Ends:
    """Hashes of the ends of paths, each with the size of the file, and of the sizes; where the images of each are."""

    def __init__(self, images: FileImages, count: int, tick: Callable[[], None]) -> None:
        self.images = images
        self.sizes = images.file_sizes[:count]
        self.names, self.tails = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        for index, size in enumerate(self.sizes.tolist()):
            tick()
            path = images.file(index).split(b"/")
            self.names[index], self.tails[index] = hash((path[-1], size)), hash((*path[-2:], size))
        self._orders: dict[str, NDArray[np.int64]] = {}

    def places(self, by: str, value: int) -> NDArray[np.int64]:
        """Of the images of this hash, by the name of its field."""
        values: NDArray[np.int64] = getattr(self, by)
        if by not in self._orders:
            self._orders[by] = np.argsort(values, kind="stable")
        order = self._orders[by]
        first, end = (int(np.searchsorted(values, value, side, sorter=order)) for side in ("left", "right"))
        return order[first:end]


def _drawn(places: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(places) <= MOST_COMPARED:
        return places
    return np.sort(np.random.default_rng(0).choice(places, MOST_COMPARED, replace=False))


def _compare(ours: _Ends, theirs: _Ends, places: NDArray[np.int64], tick: Callable[[], None]) -> tuple[int, int]:
    """Of the images at `places` of `theirs` how many have the content of one of `ours`, and how many they are."""

    def candidates(place: int) -> Iterator[int]:
        yield from ours.places("tails", int(theirs.tails[place]))[:1]
        yield from ours.places("names", int(theirs.names[place]))[:1]
        yield from ours.places("sizes", int(theirs.sizes[place]))[:MOST_OF_A_SIZE]

    found = 0
    for place in places.tolist():
        tick()
        file = theirs.images.file(place)
        found += any(_alike(file, ours.images.file(other)) for other in dict.fromkeys(candidates(place)))
    return found, len(places)


def _alike(one: bytes, other: bytes) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
