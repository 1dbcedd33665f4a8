"""Images that are copies of images of another split, or of their own: found by names and sizes of files, and by their
content.

Names and sizes alone say little: images of a format without compression are of one size, and most sets number theirs.
So what agrees in them is compared byte by byte, as far as `MOST_COMPARED` goes.
"""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from barlow_lab.foreign_text import shown
from barlow_lab.given_files import open_regular
from trainer.data.image_files import FileImages

MOST_COMPARED = 256
"""Judged images of which the content is compared, drawn among those that may be copies."""
MOST_OF_A_SIZE = 8
"""Files of its size with which an image is compared that has the name of none of them."""
MOST_READ = 512
"""Images of one split of which the beginnings are read, drawn among those that may be copies,"""
BEGINNING = 1 << 16
"""bytes of each."""
SHARE = 0.01
"""The share of images with another's content and not its name from which on they are told: published sets have a
few."""


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


def copies_within(
    images: FileImages, labels: NDArray[np.int64] | None, passed_over: Sequence[int], tick: Callable[[], None]
) -> str | None:
    """What to say of files of a split that have the content of others of it, but for the places that are `passed_over`;
    `labels` (n,) are their classes if they have any. None where none is found. Files that are there twice themselves
    are told where a split is opened."""
    ends = _Ends(images, len(images), tick)
    _, once = np.unique(images.identities, return_index=True)
    once = np.setdiff1d(once[ends.sizes[once] > 0], np.array(passed_over, dtype=np.int64))
    for values, words, share in ((ends.names, "name, size and content", 0.0), (ends.sizes, "the content", SHARE)):
        read, several = _of_groups(values, once)
        copies = _copies(images, read, values, tick)
        if not copies or len(copies) < share * len(read):
            continue
        differ, named = "", copies[0]
        if labels is not None:
            others = [pair for pair in copies if labels[pair[0]] != labels[pair[1]]]
            differ, named = f", {len(others):,} of them with another class", (others or copies)[0]
        of = (
            f" of {len(read):,} images that were compared, of {several:,} that may,"
            if len(read) < several
            else " images"
        )
        return (
            f"{len(copies):,}{of} have {words} of another of the split{differ}, first "
            f"{' and '.join(shown(images.name(place)) for place in named)}: each counts as an image; take out those "
            "that are not meant"
        )
    return None


def _of_groups(values: NDArray[np.int64], places: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Images at `places` of which others there have the same of the `values`, and how many they are: of more than
    MOST_READ whole groups are drawn, and of the last, as of one that is larger, a part."""
    _, inverse, counts = np.unique(values[places], return_inverse=True, return_counts=True)
    many = np.flatnonzero(counts[inverse] > 1)
    if len(many) <= MOST_READ:
        return places[many], len(many)
    draw = np.random.default_rng(0)
    turns = draw.permutation(len(counts))[inverse[many]]
    shuffled = draw.permutation(len(many))
    order = shuffled[np.argsort(turns[shuffled], kind="stable")]
    return places[np.sort(many[order[:MOST_READ]])], len(many)


def _copies(
    images: FileImages,
    places: NDArray[np.int64],
    values: NDArray[np.int64],
    tick: Callable[[], None],
) -> list[tuple[int, int]]:
    """Images at `places` of one of the `values` and one content, each with the first: (first, copy)."""
    firsts: dict[tuple[int, bytes], int] = {}
    found = []
    for place in places.tolist():
        tick()
        try:
            with open_regular(images.file(place)) as file:
                key = int(values[place]), hashlib.sha256(file.read(BEGINNING)).digest()
        except OSError:  # told where the image is read
            continue
        first = firsts.setdefault(key, place)
        if first != place and _alike(images.file(first), images.file(place)):
            found.append((first, place))
    return found


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
        """The places of the images of this hash, by the name of its field."""
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
    """How many of the images at `places` of `theirs` have the content of one of `ours`, and how many they are."""

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
