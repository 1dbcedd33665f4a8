"""Copies of images under the same names in other folders: smaller ones, parts of them, and those that were drawn on.

Equal names say little, as frames of two films are numbered alike: pixels decide, folder by folder.
"""

from __future__ import annotations

import os
from array import array
from collections import defaultdict
from collections.abc import Callable, Set
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from trainer.data.checks.alike_pixels import NEARLY_THE_SAME, is_copy, is_drawn_on, is_part_of
from trainer.data.checks.few_colours import glance
from trainer.data.errors import UnreadableImage
from trainer.data.image_files import FileImages, said

FEWEST = 3
"""Names that two folders have in common of which something is said."""
MOST_FOLDERS = 16
"""Pairs of folders that are looked at, those with the most names in common first;"""
FIRST_LOOK = 2
"""so many images of each are, and only if one of them is a copy"""
LOOKED_AT = 16
"""so many of all."""
DEEPEST = 4
"""Folders above an image, from its own, that may be called otherwise."""
_DEPTHS_DIFFER = -1

Pairs = NDArray[np.int64]
"""(k, 2) places of images of one name."""


def copies_by_equal_names(images: FileImages, known: Set[int], remedy: str, tick: Callable[[], None]) -> str | None:
    """What to say of them, but for images that are `known`; `tick` is called for each.

    Raises:
        OSError: the disk does not give them.
    """
    count = looked = 0
    alike: list[tuple[int, int]] = []
    for pairs in _of_folders(images, known, tick):
        found, drawn = _looked_at(images, pairs, tick)
        if found and 2 * len(found) >= drawn:
            count += len(pairs)
            looked += drawn
            alike += found
    if not alike:
        return None
    one, other = (said(images.below(place)) for place in alike[0])
    return (
        f"{count:,} of {len(images):,} images are called as others in another folder, and {len(alike)} of {looked} of "
        f"them that were looked at are the same picture by their pixels, smaller, a part of it or drawn on, first "
        f"{one} and {other}: {remedy}"
    )


def _of_folders(images: FileImages, known: Set[int], tick: Callable[[], None]) -> list[Pairs]:
    """Images of equal names, together those whose paths differ by the same two folders: `a/large/1` and `a/small/1`
    with `b/large/7` and `b/small/7`. Numbers in place of names: of a million paths objects would take gigabytes."""
    found: dict[int, tuple[array[int], array[int], array[int]]] = defaultdict(
        lambda: (array("q"), array("q"), array("q"))
    )
    depths = np.zeros(len(images), dtype=np.int64)
    for place in range(len(images)):
        tick()
        if place in known:
            continue
        folder, _, name = images.below(place).rpartition(b"/")
        stem, parts = os.path.splitext(name)[0], folder.split(b"/") if folder else []
        depths[place] = len(parts)
        rows = {_DEPTHS_DIFFER: (hash(stem), hash(folder))}
        for level in range(min(DEEPEST, len(parts))):
            at = len(parts) - 1 - level
            rows[level] = hash((stem, b"/".join(parts[:at]), b"/".join(parts[at + 1 :]))), hash(parts[at])
        for level, (key, part) in rows.items():
            for column, value in zip(found[level], (place, key, part), strict=True):
                column.append(value)
    groups: list[Pairs] = []
    for level, columns in found.items():
        places, keys, parts_of = (np.array(values, dtype=np.int64) for values in columns)
        order = np.argsort(keys, kind="stable")
        again = np.zeros(len(order), dtype=np.bool_)
        again[1:] = keys[order[1:]] == keys[order[:-1]]
        first = np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))
        one, other = order[first[again]], order[again]
        kept = parts_of[one] != parts_of[other]
        kept &= images.file_sizes[places[one]] != images.file_sizes[places[other]]  # else of equal bytes, perhaps
        if level == _DEPTHS_DIFFER:
            kept &= depths[places[one]] != depths[places[other]]
        kept = np.flatnonzero(kept)[np.argsort(other[kept], kind="stable")]  # hashes are others in each process
        one, other = one[kept], other[kept]
        both = parts_of[one] * 31 + parts_of[other]  # wraps around, as it may
        _, at_first, which, counts = np.unique(both, return_index=True, return_inverse=True, return_counts=True)
        for number in np.lexsort((at_first, -counts))[:MOST_FOLDERS].tolist():
            if counts[number] >= FEWEST:
                here = which == number
                groups.append(np.stack([places[one[here]], places[other[here]]], axis=1))
    return sorted(groups, key=lambda pairs: (-len(pairs), pairs[0, 1]))[:MOST_FOLDERS]


def _looked_at(images: FileImages, pairs: Pairs, tick: Callable[[], None]) -> tuple[list[tuple[int, int]], int]:
    """The pairs that are copies, of up to LOOKED_AT, and how many these are."""
    found: list[tuple[int, int]] = []
    drawn = np.unique(np.linspace(0, len(pairs) - 1, min(LOOKED_AT, len(pairs)), dtype=np.int64))
    for number, (one, other) in enumerate(pairs[drawn].tolist()):
        if number == FIRST_LOOK and not found:
            return [], number
        tick()
        with suppress(UnreadableImage):  # told where the image is read
            if _are_one(glance(images, one), glance(images, other)):
                found.append((one, other))
    return found, len(drawn)


def _are_one(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    small, large = sorted((one, other), key=lambda levels: levels.shape[0] * levels.shape[1])
    return is_drawn_on(one, other) or is_copy(small, large, NEARLY_THE_SAME) or is_part_of(small, large)
