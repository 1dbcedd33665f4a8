"""COCO: images, and their instances in JSON as bounding boxes with polygons or run-length masks (cocodataset.org,
"Data format"). Categories keep the order of their ids, whose gaps are closed: the 80 of COCO go up to 90.

Crowds are ignored objects. Images without objects are part of a split: what is found in them is wrong, and a test
counts it. A training has nothing of them, and detectron2 leaves them out; that is its loader's to do.

Only boxes and places in the file stay in memory; the masks of an image are read when they are asked for.
"""

from __future__ import annotations

import os
import weakref
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from barlow_lab.given_files import open_descriptor, parse_json
from barlow_lab.specs.data_sets import CocoSource
from trainer.data.errors import DataError
from trainer.data.formats.annotated_files import AnnotatedFiles, Objects
from trainer.data.formats.doubtful_boxes import MOST_OF_FRACTIONS, OF_SIDES, Given, tell_of_boxes
from trainer.data.formats.ignored_objects import tell_of_ignored
from trainer.data.formats.json_annotations import Categories, field, places_of, whole
from trainer.data.formats.json_stream import Item, JsonLists
from trainer.data.formats.mask_extents import Extents
from trainer.data.formats.other_fields import OtherFields
from trainer.data.formats.run_lengths import uncompressed, whole_numbers
from trainer.data.hearing import nobody
from trainer.data.ignored import CROWDS
from trainer.data.image_files import PackedNames

LONGEST_SIDE = 1 << 16
MAX_OUTLINE = 1 << 22
"""Pixels around the polygons of an object. pycocotools lays out five points for each of them, and ends the process
where there is no memory for these."""
LEAST_OUTLINE = 64
"""What a polygon counts at least: many small ones are much work, too."""
MAX_OUTLINE_OF_IMAGE = 1 << 26
"""The same of all objects of an image: about ten seconds."""
MAX_PIXELS_OF_MASKS = 3 << 29
"""Most pixels of all masks of an image, a byte each: 1.6 GB. 3,000 cells in a micrograph of 704 x 520 have 1.1
billion."""
MERGED_AT_ONCE = 16
"""pycocotools merges one polygon after the other into what there is, in the square of their number."""


def open_coco(
    source: CocoSource, split: str, *, tick: Callable[[], None], warn: Callable[[str], None]
) -> AnnotatedFiles:
    """Open a split; images come in the order of their ids. `warn` is told of boxes that are doubtful, of
    many crowds, and where there are no objects.

    Raises:
        DataError: the annotations are not what they should be, or images are not there.
        OSError: the annotations are not there.
    """
    files = source.splits[split]
    path = source.root / files.annotations
    found = _Instances(path, tick, with_extents=warn is not nobody)
    order = np.argsort(found.ids, kind="stable")
    names = PackedNames()
    for place in order.tolist():
        names.append(found.names[place])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    image_of = rank[places_of(np.array(found.image_ids, dtype=np.int64), found.ids, "image", path.name)]
    labels = found.categories.labels_of(np.array(found.category_ids, dtype=np.int64))
    _refuse_twice(np.array(found.own_ids, dtype=np.int64), path.name)
    by_image = np.argsort(image_of, kind="stable")
    boxes = np.array(found.boxes, dtype=np.float32).reshape(-1, 4)
    objects = Objects(
        boxes=array("f", boxes[by_image].tobytes()),
        classes=array("q", labels[by_image].tobytes()),
        ignored=array("b", np.array(found.crowds, dtype=np.int8)[by_image].tobytes()),
        ends=array("q", np.cumsum(np.bincount(image_of, minlength=len(names))).astype(np.int64).tobytes()),
    )
    masks = None
    if found.segmented:
        masks = _MasksInFile(
            path, np.array(found.starts, dtype=np.int64)[by_image], np.array(found.lengths, dtype=np.int64)[by_image]
        )
    sizes = np.array(found.sizes, dtype=np.int32).reshape(-1, 2)[order]
    given = Given(
        boxes=boxes[by_image],
        classes=labels[by_image],
        images=image_of[by_image],
        sizes=sizes,
        names=names,
        whose=path.name,
        form="left, top, width, height",
        others=OF_SIDES,
        extents=found.extents.boxes()[by_image] if found.extents is not None else None,
        of_lengths=np.array(found.extents.of_lengths, dtype=np.bool_)[by_image] if found.extents is not None else None,
        rectangles=np.array(found.extents.are_rectangles, dtype=np.bool_) if found.extents is not None else None,
    )
    tell_of_boxes(given, warn)
    tell_of_ignored(objects, found.categories.names, path.name, CROWDS, warn)
    found.others.tell(path.name, warn)
    if not len(boxes):
        listed = "an empty list" if found.lists_annotations else "no list"
        warn(
            f"split {split!r}: {path.name} has {listed} `annotations`, so that no image of it has an object: they are "
            "for pretraining alone. Name the file of their instances, as instances_val2017.json"
        )
    folder, classes = source.root / files.images, found.categories.names
    return AnnotatedFiles(path.name, folder, names, sizes, objects, classes, found.sha256, tick, masks)


class _Instances:
    """What the file holds, in its order; extents of masks if they are asked for."""

    def __init__(self, path: Path, tick: Callable[[], None], *, with_extents: bool) -> None:
        self._where = path.name
        self.names, self._ids = PackedNames(), array("q")
        self.sizes = array("l")
        self.own_ids, self.image_ids, self.category_ids = array("q"), array("q"), array("q")
        self.boxes, self.crowds = array("f"), array("b")
        self.starts, self.lengths = array("q"), array("q")
        self.segmented = False
        self.others = OtherFields()
        self.extents = Extents() if with_extents else None
        self.categories = Categories(self._where)
        file = JsonLists(path, tick)
        for item in file.items("images", "annotations", "categories"):
            if item.list == "images":
                self._image(item)
            elif item.list == "annotations":
                self._annotation(item)
            else:
                self.categories.add(item)
        self.sha256 = file.sha256
        self.lists_annotations = "annotations" in file.lists
        self.ids = np.array(self._ids, dtype=np.int64)

    def _image(self, item: Item) -> None:
        self.others.of_image(item.value)
        self._ids.append(field(item, "id", int, self._where))
        self.names.append(field(item, "file_name", str, self._where).encode("utf-8", "surrogatepass"))
        for side in ("height", "width"):
            pixels = field(item, side, int, self._where)
            if not 1 <= pixels <= LONGEST_SIDE:
                raise DataError(f"{self._where}: image {self._ids[-1]} has a {side} of {pixels} pixels")
            self.sizes.append(pixels)

    def _annotation(self, item: Item) -> None:
        self.own_ids.append(field(item, "id", int, self._where))
        self.image_ids.append(field(item, "image_id", int, self._where))
        self.category_ids.append(field(item, "category_id", int, self._where))
        box = item.value.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(number) for number in box):
            raise DataError(f"{self._where}: bbox of annotation {self.own_ids[-1]} is no list of 4 numbers")
        left, top, width, height = box
        self.boxes.extend((left, top, left + width, top + height))
        self.crowds.append(self._crowd(item))
        self.others.of_object(item.value, crowd=bool(self.crowds[-1]))
        self.starts.append(item.start)
        self.lengths.append(item.length)
        segmentation = item.value.get("segmentation")
        self.segmented = self.segmented or bool(segmentation)
        if self.extents is not None:
            self.extents.add(segmentation)

    def _crowd(self, item: Item) -> bool:
        given = item.value.get("iscrowd")
        known = given if isinstance(given, bool) else 0 if given is None else whole(given)
        if known not in (0, 1):
            raise DataError(f"{self._where}: iscrowd of annotation {self.own_ids[-1]} is {given!r}; 0 or 1 is expected")
        return bool(known)


class _MasksInFile:
    """Masks by the places in the file of the annotations they are part of."""

    def __init__(self, path: Path, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self._starts = starts
        self._lengths = lengths
        self._file = open_descriptor(path)
        weakref.finalize(self, os.close, self._file)

    def look(self, place: int, height: int, width: int) -> tuple[int, bool]:
        """What of the polygons of an object is none or shows nothing (trainer.data.formats.annotated_files.Masks)."""
        found = _readable(self._segmentation(place), height, width)
        if found.polygons:
            return found.none, not any(_shows(points, height, width) for points in found.polygons)
        return 0, not any(found.runs[1::2])

    def masks(self, places: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
        """The masks (k, H, W) of the objects of an image (trainer.data.formats.annotated_files.Masks)."""
        if len(places) * height * width > MAX_PIXELS_OF_MASKS:
            raise ValueError(
                f"{len(places):,} of {width:,} x {height:,} pixels, and all of an image may have "
                f"{MAX_PIXELS_OF_MASKS:,} together"
            )
        masks = np.zeros((len(places), height, width), dtype=np.bool_)
        outline = 0.0
        for row, place in enumerate(places):
            found = _readable(self._segmentation(place), height, width)
            outline += found.outline
            if outline > MAX_OUTLINE_OF_IMAGE:
                raise ValueError(f"polygons with an outline of more than {MAX_OUTLINE_OF_IMAGE:,} pixels together")
            _put(_columns(found, height, width), masks[row])
        return masks

    def _segmentation(self, place: int) -> Any:
        return parse_json(os.pread(self._file, int(self._lengths[place]), int(self._starts[place]))).get("segmentation")


class _Readable(NamedTuple):
    """What of a mask can be read."""

    polygons: list[list[float]]
    """Those that are some; empty where it is one of run lengths."""
    runs: list[int]
    none: int = 0
    """How many polygons are none."""
    outline: float = 0.0
    """Pixels around the polygons, LEAST_OUTLINE at least for each."""


def mask_of(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """The mask (H, W) of COCO's polygons, [[x0, y0, x1, y1, ...], ...], or of its run lengths, {size, counts}.

    Polygons are filled by pycocotools: which pixels of an edge are inside is its to say. Among polygons what is none,
    as one of two points, is left out, as detectron2 does (pycocotools takes it for a box, and the others with it). Run
    lengths are laid out here, because pycocotools leaves memory as it finds it where there are too few.

    Raises:
        ValueError: it is neither, is not of this size, or no polygon is one.
    """
    return _columns(_readable(segmentation, height, width), height, width).T


def _put(columns: NDArray[np.bool_], mask: NDArray[np.bool_]) -> None:
    """Write a mask, given as columns (W, H), into one (H, W) of zeros. Where it has none nothing is written: that is
    fast, and memory of zeros that nobody wrote to costs nothing."""
    across = np.flatnonzero(columns.any(axis=1))
    if len(across):
        left, right = across[0], across[-1] + 1
        down = np.flatnonzero(columns[left:right].any(axis=0))
        top, bottom = down[0], down[-1] + 1
        mask[top:bottom, left:right] = columns[left:right, top:bottom].T


def _columns(found: _Readable, height: int, width: int) -> NDArray[np.bool_]:
    """A mask column by column, (W, H), as run lengths have it."""
    if found.polygons:
        from pycocotools import mask

        merged = mask.frPyObjects(found.polygons, height, width)
        while len(merged) > 1:
            merged = [mask.merge(merged[at : at + MERGED_AT_ONCE]) for at in range(0, len(merged), MERGED_AT_ONCE)]
        filled: NDArray[np.uint8] = mask.decode(merged[0])
        return filled.T.astype(np.bool_)
    inside = np.arange(len(found.runs)) % 2 == 1
    columns: NDArray[np.bool_] = np.repeat(inside, found.runs).reshape(width, height)
    return columns


def _readable(segmentation: Any, height: int, width: int) -> _Readable:
    """What of a mask can be read, run lengths uncompressed.

    Raises:
        ValueError: nothing, or it would cost too much.
    """
    if isinstance(segmentation, list) and segmentation:
        polygons, outline, cause = [], 0.0, ""
        for polygon in segmentation:
            points = polygon if isinstance(polygon, list) else []
            if len(points) < 6 or len(points) % 2 or not all(_is_number(x) and abs(x) <= LONGEST_SIDE for x in points):
                cause = cause or "a polygon is a list of x and y of three points or more, in pixels"
            elif (outline := outline + max(LEAST_OUTLINE, _around(points))) > MAX_OUTLINE:
                raise ValueError(
                    f"polygons with an outline of more than {MAX_OUTLINE:,} pixels, {LEAST_OUTLINE} at least for each"
                )
            else:
                polygons.append(points)
        if not polygons:
            raise ValueError(cause)
        return _Readable(polygons, [], len(segmentation) - len(polygons), outline)
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        raise ValueError(f"neither polygons nor run lengths of {height} x {width} pixels")
    counts = segmentation.get("counts")
    runs = uncompressed(counts) if isinstance(counts, str) else whole_numbers(counts)
    if runs is None or any(run < 0 for run in runs):
        raise ValueError("run lengths are numbers of pixels")
    if sum(runs) != height * width:
        raise ValueError(f"run lengths of {sum(runs):,} pixels for {height} x {width}")
    return _Readable([], runs)


def _shows(points: list[float], height: int, width: int) -> bool:
    """Whether a polygon covers a pixel, other than the first one of its image by points that are fractions of it."""
    corners = _corners(points)
    (right, bottom), (left, top) = corners.max(axis=0), corners.min(axis=0)
    if max(right, bottom) <= MOST_OF_FRACTIONS:
        return False
    following = _following(corners)
    area = abs((corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]).sum()) / 2
    if min(left, top) >= 0 and right <= width and bottom <= height and area > 1.5 * _around(points):
        return True  # more than the way around it, sqrt(2) times that at most: it cannot pass between all pixels
    from pycocotools import mask

    return bool(mask.area(mask.frPyObjects([points], height, width)).any())


def _around(points: list[float]) -> float:
    """How long the way around a polygon is, each edge by its longer side."""
    corners = _corners(points)
    return float(np.abs(corners - _following(corners)).max(axis=1).sum())


def _corners(points: list[float]) -> NDArray[np.float64]:
    """The corners of a polygon [x, y, x, y, ...], (k, 2)."""
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _following(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The next corner of each."""
    return np.concatenate((corners[1:], corners[:1]))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30  # no NaN either


def _refuse_twice(ids: NDArray[np.int64], where: str) -> None:
    different, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{where} has several annotations with the id {different[counts > 1][0]}; an id stands for one")
