"""Boxes that are there twice, or look as if they were written in another form than the one they are read in.

All of it is told and nothing is changed: a box is what its format says it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.hearing import nobody
from trainer.data.image_files import PackedNames, said

MOST_OF_FRACTIONS = 1.01
"""Up to which coordinates look like parts of an image's sides, to rounding."""
OFF = 3.0
"""Pixels by which an edge of a box may be off its mask's,"""
OFF_OF_SIDE = 0.2
"""or this part of the mask's side, if that is more: boxes drawn by hand are."""
OVER = 2.0
"""Pixels over the edge of an image that are no rounding."""
MANY = 0.1
"""The part of all boxes that have to be wrong before another form is thought of;"""
ALMOST_ALL = 0.95
"""so many have to fit in that one."""

PERCENT = 100.5
"""Up to which coordinates look like percent of an image's sides,"""
LEAST_OF_PERCENT = 50.0
"""if some are above this,"""
LARGER = 2.0
"""while images are so many times as large,"""
OF_LARGER = 0.5
"""those of so large a part of the boxes,"""
FEWEST = 8
"""and boxes so many at least."""
FEWEST_MASKS = 20
"""Masks of which some can be said,"""
OF_RECTANGLES = 0.9
"""and the share of upright rectangles that objects of many shapes do not have."""
FEWEST_OVER = 3
"""Boxes over the right or bottom edge alone that are no carelessness, if each lies as one that begins at its centre."""

Boxes = NDArray[np.float32]
"""(k, 4): left, top, right, bottom."""
Form = Callable[[Boxes], Boxes]
"""What boxes would be that were written in another form."""


def _columns(boxes: Boxes) -> tuple[NDArray[np.float32], ...]:
    return boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3]


def _sides_are_corners(boxes: Boxes) -> Boxes:
    left, top, right, bottom = _columns(boxes)
    return np.stack((left, top, right - left, bottom - top), axis=1)


def _from_centre(boxes: Boxes) -> Boxes:
    left, top, right, bottom = _columns(boxes)
    across, down = (right - left) / 2, (bottom - top) / 2
    return np.stack((left - across, top - down, left + across, top + down), axis=1)


def _corners_are_sides(boxes: Boxes) -> Boxes:
    left, top, right, bottom = _columns(boxes)
    return np.stack((left, top, left + right, top + bottom), axis=1)


def _exchanged(boxes: Boxes) -> Boxes:
    return boxes[:, [1, 0, 3, 2]]


CENTRE = "centre, width, height"
OF_SIDES: Mapping[str, Form] = {
    "left, top, right, bottom": _sides_are_corners,
    CENTRE: _from_centre,
    "top, left, height, width": _exchanged,
    "top, left, bottom, right": lambda boxes: _exchanged(_sides_are_corners(boxes)),
}
"""What may be written where left, top, width and height are expected, as by COCO."""
OF_CORNERS: Mapping[str, Form] = {
    "left, top, width, height": _corners_are_sides,
    "ymin, xmin, ymax, xmax": _exchanged,
}
"""What may be written where xmin, ymin, xmax and ymax are expected, as by VOC."""


@dataclass(frozen=True, slots=True)
class Given:
    """The objects of a split as its annotations give them, image by image."""

    boxes: Boxes
    classes: NDArray[np.int64]
    images: NDArray[np.int64]
    """(k,) the image that each is of."""
    sizes: NDArray[np.int32]
    """(n, 2) height and width of the images."""
    names: PackedNames
    whose: str
    """What they are called."""
    form: str
    """In which form boxes are expected,"""
    others: Mapping[str, Form]
    """and in which others they may have been written."""
    extents: Boxes | None = None
    """Extents of the masks; NaN where an object has none that was looked at."""
    of_lengths: NDArray[np.bool_] | None = None
    """Which of these are of run lengths in a list."""
    rectangles: NDArray[np.bool_] | None = None
    """Which objects have an upright rectangle for a mask."""


def tell_of_boxes(given: Given, warn: Callable[[str], None]) -> None:
    """Warn of what is doubtful of the boxes of a split."""
    if warn is nobody:
        return
    _tell_of_fractions(given, warn)
    _tell_of_twice(given, warn)
    _tell_of_rectangles(given, warn)
    if not _tell_of_masks_elsewhere(given, warn) and not _tell_of_percent(given, warn):
        _tell_of_another_form(given, warn)


def _tell_of_fractions(given: Given, warn: Callable[[str], None]) -> None:
    if count := int(_fractions(given.boxes).sum()):
        warn(
            f"{count:,} of {len(given.boxes):,} boxes of {given.whose} lie between 0 and 1: are they fractions of the "
            "image's sides? Boxes are read as pixels; multiply these by width and height"
        )


def _tell_of_rectangles(given: Given, warn: Callable[[str], None]) -> None:
    """Warn of masks that are boxes once more, as programs write them that have boxes alone."""
    if given.rectangles is None or given.extents is None:
        return
    masks, count = int(np.isfinite(given.extents).all(axis=1).sum()), int(given.rectangles.sum())
    if masks >= FEWEST_MASKS and count >= OF_RECTANGLES * masks:
        warn(
            f"{count:,} of {masks:,} masks of {given.whose} are upright rectangles: were they made of boxes? Scores of "
            "masks then judge boxes; leave masks out, or take annotations that have outlines"
        )


def _tell_of_percent(given: Given, warn: Callable[[str], None]) -> bool:
    """Warn of boxes that all lie within 0 and 100 while most are of images that are larger."""
    kept = _has_area(given.boxes)
    boxes = given.boxes[kept]
    if len(boxes) < FEWEST or not (boxes >= -1).all() or boxes.max() > PERCENT:
        return False
    are_large = given.sizes[given.images[kept]].min(axis=1) >= LARGER * 100
    if are_large.sum() < FEWEST or are_large.mean() < OF_LARGER or boxes[are_large].max() <= LEAST_OF_PERCENT:
        return False
    whose = "their images are" if are_large.all() else f"the images of {int(are_large.sum()):,} of them are"
    warn(
        f"all {len(boxes):,} boxes of {given.whose} lie between 0 and 100, and {whose} larger: are they "
        "percent of the image's sides, as Label Studio writes them? Boxes are read as pixels; multiply these by width "
        "and height and divide by 100"
    )
    return True


def _fractions(boxes: Boxes) -> NDArray[np.bool_]:
    within = ((boxes >= -1) & (boxes <= MOST_OF_FRACTIONS)).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    return np.asarray(within & _has_area(boxes))


def _tell_of_twice(given: Given, warn: Callable[[str], None]) -> None:
    """Warn of objects that have image and box of one before them; those without an area may be all zeros."""
    kept = np.flatnonzero(_has_area(given.boxes))
    edges = (given.boxes[kept] + np.float32(0)).view(np.int32)  # -0.0 is 0.0
    order, same = _equal_neighbours(given.images[kept], *edges.T)
    if not same.any():
        return
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    count = int(_equal_neighbours(first, given.classes[kept][order])[1].sum())
    others = int(same.sum()) - count
    where = said(given.names[int(given.images[kept[order[int(np.argmax(same))]]])])
    told = []
    if count:
        told.append(
            f"{count:,} of {len(given.boxes):,} objects of {given.whose} have image, class and box of another one: "
            "they are learned twice, and a detection finds one of two such alone; leave out all but one"
        )
    if others:
        whose = "have" if count else f"of {len(given.boxes):,} of {given.whose} have"
        told.append(f"{others:,} {'more ' if count else 'objects '}{whose} image and box of one of another class")
    warn(f"{'; '.join(told)} (first in {where})")


def _equal_neighbours(*columns: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """An order of rows of whole numbers in which equal ones stand together, and whether each equals the one before."""
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:  # a number for a row: sorted by all of its columns COCO's would take seconds
        mixed = (mixed ^ column.astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    same = np.zeros(len(order), dtype=np.bool_)
    same[1:] = np.all([column[order[1:]] == column[order[:-1]] for column in columns], axis=0)
    return order, same


def _tell_of_masks_elsewhere(given: Given, warn: Callable[[str], None]) -> bool:
    """Warn of boxes that are not where their masks are; returns whether it is known why."""
    if given.extents is None:
        return False
    known = np.isfinite(given.extents).all(axis=1)
    looked = np.flatnonzero(known & _has_area(given.boxes) & ~_fractions(given.boxes))
    edges = given.sizes[given.images[looked]][:, ::-1].astype(np.float32)
    extents, boxes = given.extents[looked], given.boxes[looked]
    off = _off(boxes, extents, edges)
    count = int(off.sum())
    if not count:
        return False
    shares = {
        form: float((~_off(read(boxes[off]), extents[off], edges[off])).mean()) for form, read in given.others.items()
    }
    form = max(shares, key=lambda each: shares[each])
    fits = shares[form] > 0.5
    why = (
        f"most of these would fit as {form}: write them as {given.form}"
        if fits
        else f"are they {given.form}, in pixels of the image as it is?"
    )
    if given.of_lengths is not None and given.of_lengths[looked[off]].any():
        why = f"{why.removesuffix('?')}, or are the run lengths row by row, where COCO's go column by column?"
    where = said(given.names[int(given.images[looked[int(np.argmax(off))]])])
    warn(
        f"{count:,} of {len(looked):,} boxes of {given.whose} are elsewhere than their polygons or run lengths "
        f"(first in {where}); {why}"
    )
    return fits


def _off(boxes: Boxes, extents: Boxes, edges: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which boxes are off the extents of their masks, as far as both lie within the image."""
    corners = np.concatenate((edges, edges), axis=1)
    boxes, extents = np.clip(boxes, 0, corners), np.clip(extents, 0, corners)
    sides = np.tile(extents[:, 2:] - extents[:, :2], 2)
    return np.asarray((np.abs(boxes - extents) > np.maximum(OFF, OFF_OF_SIDE * sides)).any(axis=1))


def _tell_of_another_form(given: Given, warn: Callable[[str], None]) -> None:
    """Warn where many boxes reach over their image or have no area, and almost all would be well in another form; and
    where most reach over it."""
    boxes = given.boxes
    if not len(boxes):
        return
    edges = given.sizes[given.images][:, ::-1].astype(np.float32)
    over = _over(boxes, edges)
    wrong = over | ~_has_area(boxes)
    if wrong.mean() < MANY:
        _tell_of_centres(given, over, edges, warn)
        return
    for form, read in given.others.items():
        others = read(boxes)
        if (_has_area(others) & ~_over(others, edges)).mean() >= ALMOST_ALL:
            warn(
                f"{int(wrong.sum()):,} of {len(boxes):,} boxes of {given.whose} reach over the edge of their image or "
                f"have no area, and almost all would lie within it as {form}: are they written so? They are read as "
                f"{given.form}; write them as these"
            )
            return
    if over.mean() > 0.5:
        warn(
            f"{int(over.sum()):,} of {len(boxes):,} boxes of {given.whose} reach over the edge of their image: are "
            f"they {given.form}, in pixels of the image as it is, and not of another size?"
        )


def _tell_of_centres(
    given: Given, over: NDArray[np.bool_], edges: NDArray[np.float32], warn: Callable[[str], None]
) -> None:
    """Warn where few boxes reach over their image, as of small objects, yet each as one that begins at its centre, and
    none begins so near to the left or top edge that its centre could not be there."""
    read = given.others.get(CENTRE)
    if read is None or over.sum() < FEWEST_OVER or _over(read(given.boxes), edges).any():
        return
    warn(
        f"{int(over.sum()):,} of {len(given.boxes):,} boxes of {given.whose} reach over the edge of their image, and "
        f"all would lie within it as {CENTRE}: are they written so? They are read as {given.form}; write them as these"
    )


def _has_area(boxes: Boxes) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, :2] < boxes[:, 2:]).all(axis=1))


def _over(boxes: Boxes, edges: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, :2] < -OVER).any(axis=1) | (boxes[:, 2:] > edges + OVER).any(axis=1))
