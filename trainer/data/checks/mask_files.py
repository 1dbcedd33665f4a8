"""Images of a split that are masks of others of it: by their names, or those of their folders, and their pixels.

Names alone say little: a class may be called `masks`, and its files be numbered as those of the class beside it are. So
some of those that are called so are read. What is called otherwise trainer.data.checks.companions finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from trainer.data.checks.companions import Companions
from trainer.data.checks.few_colours import FLATTER, OF_IMAGE, ImageColours
from trainer.data.checks.mask_names import Folders, is_called_mask
from trainer.data.image_files import FileImages, said

T = TypeVar("T")

LOOKED_AT = 16
"""Pairs of which both images are read, and files of folders that are called as those of masks are."""
REMEDY = "they are taken as all images are; if that is not meant, put them into a folder beside those of the splits"


def masks_of_others(images: FileImages, tick: Callable[[], None], *, labelled: bool) -> tuple[list[str], list[int]]:
    """What to say of masks among the images, and the places of those that are known. `labelled` says that folders may
    be classes; `tick` is called for each image.

    Raises:
        OSError: the disk does not give them.
    """
    seen = ImageColours(images, tick)
    pairs, others, alone = _called_so(images, tick)
    told, masks = [], set[int]()
    if words := _told_of_pairs(images, pairs, seen):
        told.append(words)
        masks |= {mask for mask, _ in pairs}
    if words := _told_of_folders(images, alone, others, seen, labelled=labelled):
        told.append(words)
        masks |= set(alone)
    companions = Companions(images, seen, tick)
    if found := companions.among(masks, labelled=labelled):
        told.append(f"{companions.words(found)}: {REMEDY}")
        masks |= {mask for mask, _ in found}
    return told, sorted(masks)


def _called_so(images: FileImages, tick: Callable[[], None]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """By names alone: places of masks with those of their images, of what is called as no mask is, and of files of
    folders that are called as those of masks are, and pair with none."""
    folders = Folders()
    masks: list[int] = []
    in_folders: list[int] = []
    for place in range(len(images)):
        tick()
        folder, _, name = images.below(place).rpartition(b"/")
        if folders.of_masks(folder):
            in_folders.append(place)
            masks.append(place)
        elif is_called_mask(name):
            masks.append(place)
    if not masks:
        return [], [], []
    wanted: dict[int, list[int]] = {}
    for mask in masks:
        for key in folders.of_mask(images.below(mask)):
            wanted.setdefault(key, []).append(mask)
    found: dict[int, int] = {}
    others = np.setdiff1d(np.arange(len(images)), masks).tolist()
    for place in others:
        tick()
        for key in folders.of_image(images.below(place)):
            for mask in wanted.get(key, ()):
                found.setdefault(mask, place)
    return sorted(found.items()), others, [place for place in in_folders if place not in found]


def _told_of_pairs(images: FileImages, pairs: Sequence[tuple[int, int]], seen: ImageColours) -> str | None:
    drawn = _spaced(pairs)
    alike = [pair for pair in drawn if seen.is_mask_of(*pair, in_word=True)]
    if not alike or 2 * len(alike) < len(drawn):
        return None
    mask, image = (said(images.below(place)) for place in alike[0])
    return (
        f"{len(pairs):,} of {len(images):,} images look like masks of others by their names, and {len(alike)} of "
        f"{len(drawn)} of them that were looked at by their pixels, first {mask}, of {image}: {REMEDY}"
    )


def _told_of_folders(
    images: FileImages, alone: Sequence[int], others: Sequence[int], seen: ImageColours, *, labelled: bool
) -> str | None:
    """Not where the other images are drawings as well, nor of a folder that may be a class, of drawings whose colours
    differ."""
    drawn = _spaced(alone)
    alike = [place for place in drawn if seen.may_be_mask(place)]
    if not alike or 2 * len(alike) < len(drawn):
        return None
    if labelled and not seen.are_of_one_kind(alike):
        return None
    ours, theirs = ([each for place in places if (each := seen.colours(place))] for places in (alike, _spaced(others)))
    if theirs:
        fewer = np.median([each.share for each in ours]) - np.median([each.share for each in theirs])
        flatter = np.median([each.flat for each in ours]) - np.median([each.flat for each in theirs])
        if fewer < OF_IMAGE and flatter < FLATTER:
            return None
    return (
        f"{len(alone):,} of {len(images):,} images lie in folders that are called as those of masks are, and look like "
        f"masks by their pixels, as {len(alike)} of {len(drawn)} that were looked at do, first "
        f"{said(images.below(alike[0]))}: {REMEDY}"
    )


def _spaced(items: Sequence[T]) -> list[T]:
    """Up to LOOKED_AT of them."""
    if not items:
        return []
    return [items[at] for at in np.unique(np.linspace(0, len(items) - 1, LOOKED_AT, dtype=np.int64)).tolist()]
