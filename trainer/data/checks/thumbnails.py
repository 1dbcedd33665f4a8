"""Smaller copies among the images of a split, which a program wrote: in folders of thumbnails, or beside them by names
that end in a size or a word for it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from trainer.data.checks.alike_pixels import is_copy
from trainer.data.checks.few_colours import glance
from trainer.data.checks.like_named import copies_by_equal_names
from trainer.data.errors import UnreadableImage
from trainer.data.image_files import FileImages, said

_FOLDER = re.compile(rb"[_@~ -]?(?:thumb(?:nail)?s?|previews?|minis|tn)(?:[_-]?[0-9x]+)?[_@~]?", re.IGNORECASE)
SMALLER = 2
"""Times that half of the others' files are longer: a class may be called so, of thumbs that are held up."""
_WORD = rb"(?:(?:small|medium|thumb(?:nail)?|preview|mini)s?|low[-_ ]?res|low|web|min|resized|scaled|th|tn)"
_SIZE = re.compile(
    rb"(?P<of>.+?)(?:(?: - |[-_. ])(?:[0-9]{2,5}x[0-9]{2,5}|" + _WORD + rb")"
    rb"| ?[(](?:[0-9]{2,5} ?x ?[0-9]{2,5}|[^()0-9][^()]*)[)]"
    rb"|(?P<apart>_[0-9]_[0-9]{3,4}_[a-z])|(?P<larger>@[234]x))"
    rb"|(?:" + _WORD + rb"|s)[-_](?P<behind>.+)",
    re.IGNORECASE,
)
"""Name of a smaller copy: that of a web page, of a microscope, of a library of photographs, where both are in folders
`apart`, or that which the copy is `larger` than, for displays of more pixels. In brackets stand sizes by any word."""
_UNIQUE = re.compile(rb"(?<=.)[-_ ]?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""What MetaXpress adds to each name, so that none is there twice."""
LOOKED_AT = 16
"""Pairs of which both images are read."""
REMEDY = "they are taken as all images are; if that is not meant, put them into a folder beside those of the splits"


def smaller_copies(
    images: FileImages, masks: Sequence[int], tick: Callable[[], None], *, by_equal_names: bool
) -> list[str]:
    """What to say of smaller copies, but for the places of `masks`, and of copies `by_equal_names` in other folders,
    which images of several classes may have; `tick` is called for each image.

    Raises:
        OSError: the disk does not give them.
    """
    in_folders = _in_folders(images, tick)
    known = {*masks, *np.flatnonzero(in_folders).tolist()}
    pairs = _by_name(images, known, tick)
    told = [_told_of_folders(images, in_folders), _told_of_pairs(images, pairs, tick)]
    if by_equal_names:
        told.append(copies_by_equal_names(images, known | {small for small, _ in pairs}, REMEDY, tick))
    return [words for words in told if words]


def _in_folders(images: FileImages, tick: Callable[[], None]) -> NDArray[np.bool_]:
    """Which images are in folders that are called as those of thumbnails are, if their files are smaller than the
    others'."""
    called: dict[bytes, int] = {}
    """Numbers of those folders; 0: it is called otherwise."""
    which = np.zeros(len(images), dtype=np.int64)
    for place in range(len(images)):
        tick()
        folder, _, _ = images.below(place).rpartition(b"/")
        if folder not in called:
            called[folder] = len(called) + 1 if any(map(_FOLDER.fullmatch, folder.split(b"/"))) else 0
        which[place] = called[folder]
    others = images.file_sizes[which == 0]
    small = [
        number
        for number in called.values()
        if number and len(others) and SMALLER * np.median(images.file_sizes[which == number]) <= np.median(others)
    ]
    found: NDArray[np.bool_] = np.isin(which, small)
    return found


def _told_of_folders(images: FileImages, are_small: NDArray[np.bool_]) -> str | None:
    if not are_small.any():
        return None
    return (
        f"{int(are_small.sum()):,} of {len(images):,} images lie in folders that are called as those of thumbnails "
        f"are, and their files are smaller than the others', first {said(images.below(int(are_small.argmax())))}: "
        f"{REMEDY}"
    )


def _by_name(images: FileImages, known: set[int], tick: Callable[[], None]) -> list[tuple[int, int]]:
    """(smaller, larger) by names alone, but for those that are `known`: of one folder, or of a library's several."""
    wanted: dict[int, list[tuple[int, bool]]] = {}
    for place in range(len(images)):
        tick()
        folder, _, name = images.below(place).rpartition(b"/")
        if place not in known and (found := _SIZE.fullmatch(_stem(name))):
            of = found["of"] or found["behind"]
            key = hash((b"" if found["apart"] else folder, bool(found["apart"]), of))
            wanted.setdefault(key, []).append((place, bool(found["larger"])))
    pairs: dict[int, int] = {}
    for place in range(len(images)) if wanted else ():
        tick()
        folder, _, name = images.below(place).rpartition(b"/")
        stem = _stem(name)
        for key in (hash((folder, False, stem)), hash((b"", True, stem))):
            for other, is_larger in wanted.get(key, ()):
                small, large = (place, other) if is_larger else (other, place)
                if place not in known:
                    pairs.setdefault(small, large)
    return sorted(pairs.items())


def _stem(name: bytes) -> bytes:
    """A file's name without its ending, and without what only tells it from all others."""
    stem = os.path.splitext(name)[0]
    return _UNIQUE.sub(b"", stem) if stem.count(b"-") >= 4 else stem


def _told_of_pairs(images: FileImages, pairs: Sequence[tuple[int, int]], tick: Callable[[], None]) -> str | None:
    drawn = np.unique(np.linspace(0, len(pairs) - 1, min(LOOKED_AT, len(pairs)), dtype=np.int64)).tolist()
    alike = []
    for at in drawn:
        tick()
        with suppress(UnreadableImage):  # told where the image is read
            if is_copy(glance(images, pairs[at][0]), glance(images, pairs[at][1])):
                alike.append(pairs[at])
    if not alike or 2 * len(alike) < len(drawn):
        return None
    small, large = (said(images.below(place)) for place in alike[0])
    return (
        f"{len(pairs):,} of {len(images):,} images look like smaller copies of others by their names, and {len(alike)} "
        f"of {len(drawn)} of them that were looked at by their pixels, first {small}, of {large}: {REMEDY}"
    )
