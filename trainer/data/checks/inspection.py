"""A look at images of a split, before anybody learns from it: at some files and the names of all, at all records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from barlow_lab.foreign_text import shown
from trainer.data.binary_files import BinaryImages
from trainer.data.checks.copies import copies_within
from trainer.data.checks.layouts import told_of_order
from trainer.data.checks.mask_files import masks_of_others
from trainer.data.checks.overlap import again
from trainer.data.checks.thumbnails import smaller_copies
from trainer.data.classes import none_readable
from trainer.data.datasets import AnnotatedDataSet, ImageDataSet, Images
from trainer.data.decoding.reading import DARK
from trainer.data.errors import UnreadableImage
from trainer.data.image_files import FileImages

LOOKED_AT = 32


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was seen: `told` in words of what is lost of images, `sides` (height, width) of those that can be read."""

    told: list[str]
    sides: set[tuple[int, int]]
    looked_at: int = 0
    unreadable: int = 0
    """So many of them cannot be read,"""
    first: str = ""
    """the first of which is named here, with its cause."""
    lost: str = ""
    """Which classes have none that can be read, of up to LOOKED_AT each that were looked at for that."""


def look_at(images: Images, tick: Callable[[], None]) -> Inspection:
    """Read up to LOOKED_AT images of a split, evenly spaced, if they are files; `tick` is called for each. The
    split warns of none afterwards.

    Raises:
        OSError: the disk does not give them.
    """
    sides: set[tuple[int, int]] = set()
    if not isinstance(images, FileImages):
        return Inspection([], sides)
    places = np.unique(np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images)), dtype=np.int64))
    reading = images.look_anew()
    reading.of_boxes = isinstance(images, AnnotatedDataSet)
    unreadable: list[str] = []
    blind: list[int] = []
    for place in places.tolist():
        tick()
        try:
            height, width = images.image(place).shape[:2]
        except UnreadableImage as error:
            unreadable.append(f"{error.name}: {error.cause}")
            blind.append(place)
            continue
        sides.add((height, width))
    told, lost = reading.tally(), ""
    if sides and blind and isinstance(images, ImageDataSet):
        which = unreadable_classes(images, np.unique(images.labels()[blind]), tick, most=LOOKED_AT)
        if len(which):
            lost = none_readable(images.classes, which, f"up to {LOOKED_AT} of each were tried")
    return Inspection(told, sides, len(places), len(unreadable), next(iter(unreadable), ""), lost)


def unreadable_classes(
    images: Images, labels: NDArray[np.int64], tick: Callable[[], None], *, most: int | None = None
) -> NDArray[np.int64]:
    """Which of the classes `labels` have no image that can be read, of all or of up to `most` each, evenly spaced;
    `tick` is called for each that is looked at.

    Raises:
        OSError: the disk does not give them.
    """
    of = images.labels() if isinstance(images, ImageDataSet) else None
    there = images.presence() if isinstance(images, AnnotatedDataSet) else None
    lost = []
    for label in labels.tolist():
        places = np.flatnonzero(of == label if there is None else there[:, label])
        if most is not None and len(places) > most:
            places = places[np.linspace(0, len(places) - 1, most, dtype=np.int64)]
        if not any(_is_readable(images, place, tick) for place in places.tolist()):
            lost.append(label)
    return np.array(lost, dtype=np.int64)


def _is_readable(images: Images, place: int, tick: Callable[[], None]) -> bool:
    tick()
    try:
        images.image(place)
    except UnreadableImage:
        return False
    return True


def told_of(images: Images, tick: Callable[[], None]) -> list[str]:
    """What there is to tell of a split as a whole; `tick` is called for each image.

    Raises:
        OSError: the disk does not give them.
    """
    if isinstance(images, BinaryImages):
        return [*_told_of_records(images, tick), *told_of_order(images, tick)]
    if not isinstance(images, FileImages):
        return []
    labels = images.labels() if isinstance(images, ImageDataSet) else None
    told, masks = masks_of_others(images, tick, labelled=labels is not None)
    copied = copies_within(images, labels, masks, tick)  # masks are often alike, as where nothing is to be marked
    by_equal_names = not isinstance(images, ImageDataSet | AnnotatedDataSet)
    smaller = smaller_copies(images, masks, tick, by_equal_names=by_equal_names)
    return [*told, *([copied] if copied else []), *smaller]


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
