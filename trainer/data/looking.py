"""A look at images of a split, before anybody learns from it: at some files and the names of all, at all records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from barlow_lab.foreign_text import shown
from trainer.data.binary_files import BinaryImages
from trainer.data.copies import copies_within
from trainer.data.datasets import ImageDataSet, Images
from trainer.data.decoding.reading import DARK
from trainer.data.errors import UnreadableImage
from trainer.data.image_files import FileImages
from trainer.data.mask_files import masks_of_others
from trainer.data.overlap import again

LOOKED_AT = 32


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen: `told` in words of what is lost of images, `sides` (height, width) of those that can be read."""

    told: list[str]
    sides: set[tuple[int, int]]
    looked_at: int = 0
    unreadable: int = 0
    """So many of them cannot be read,"""
    first: str = ""
    """the first of which is named here, with its cause."""


def look_at(images: Images, tick: Callable[[], None]) -> Look:
    """Read up to LOOKED_AT images of a split, evenly spaced, if they are files; `tick` is called for each. The
    split warns of none afterwards.

    Raises:
        OSError: the disk does not give them.
    """
    sides: set[tuple[int, int]] = set()
    if not isinstance(images, FileImages):
        return Look([], sides)
    places = np.unique(np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images)), dtype=np.int64))
    reading = images.look_anew()
    unreadable: list[str] = []
    for place in places.tolist():
        tick()
        try:
            height, width = images.image(place).shape[:2]
        except UnreadableImage as error:
            unreadable.append(f"{error.name}: {error.cause}")
            continue
        sides.add((height, width))
    return Look(reading.tally(), sides, len(places), len(unreadable), next(iter(unreadable), ""))


def told_of(images: Images, tick: Callable[[], None]) -> list[str]:
    """What there is to tell of a split as a whole; `tick` is called for each image.

    Raises:
        OSError: the disk does not give them.
    """
    if isinstance(images, BinaryImages):
        return _told_of_records(images, tick)
    if not isinstance(images, FileImages):
        return []
    labels = images.labels() if isinstance(images, ImageDataSet) else None
    told, masks = masks_of_others(images, tick) or (None, [])
    copied = copies_within(images, labels, masks, tick)  # masks are often alike, as where nothing is to be marked
    return [said for said in (told, copied) if said]


def _told_of_records(images: BinaryImages, tick: Callable[[], None]) -> list[str]:
    records = images.records(tick)
    told = []
    for which, words in (
        (records.one_colour, "of one colour throughout, as where a file was not written, or was overwritten"),
        (records.almost_black, f"almost black: 99.9 % of an image's levels are below {DARK} of 255"),
    ):
        if count := int(which.sum()):
            told.append(
                f"{count:,} of {len(images):,} images are {words}, first {shown(images.name(int(which.argmax())))}: "
                "if that is not meant, unpack the archive again (docs/data-sets.md, What a set is for)"
            )
    others = np.where(records.one_colour, np.arange(len(images)), records.identities)  # than those told of already
    if said := again(images, others):
        told.append(said)
    return told
