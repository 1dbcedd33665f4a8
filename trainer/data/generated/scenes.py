"""`scenes`: generated 64x64 images of one to four objects, with boxes, masks and the classes that are in them.

An object is a shape that is filled with a texture, and its class is the family of that texture. Shape, place, size,
angle, colours, phase, frequency, shading and noise are nuisance. The background is smooth or has a texture that is no
class, in colours of its own. A later object may hide a part of an earlier one, of which 60 % stay visible.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.datasets import Annotation, BoxCounts, MaskFaults
from trainer.data.generated.texture_families import (
    FAMILIES,
    Draws,
    Family,
    Plane,
    draws_for,
    grid,
    levels,
    painted,
    plain,
)
from trainer.data.keyed import Purpose, uniforms

SIDE = 64
SPLITS = {"train": 2000, "test": 500}
CLASSES = ("horizontal stripes", "vertical stripes", "checks", "rings", "fine noise")
OBJECTS = 4
"""Most objects of a scene."""
SIZES = (22, 36)
"""Least and largest diameter in pixels of the circle that an object fills or touches with its corners."""
VISIBLE = 0.6
"""Part of each object's pixels that no other hides, at least."""

_BACKGROUNDS: tuple[Family, ...] = (plain, FAMILIES["diagonal stripes"], FAMILIES["dots"], FAMILIES["coarse noise"])
_TRIES = 12
_DRAWS_OF_OBJECT = 4 + 2 * _TRIES
_LAYOUT, _BACKGROUND = 0, 1
"""Streams of a scene; the object numbers follow on the background's."""

Mask = NDArray[np.bool_]


def _disc(size: int, angle: float) -> Mask:
    x, y, centre = grid(size)
    inside: Mask = np.hypot(x - centre, y - centre) <= size / 2
    return inside


def _ring(size: int, angle: float) -> Mask:
    x, y, centre = grid(size)
    return _disc(size, angle) & (np.hypot(x - centre, y - centre) > 0.4 * size / 2)


def _polygon(corners: int) -> Callable[[int, float], Mask]:
    """The regular polygon: the pixels that are on the inner side of each of its edges."""

    def shape(size: int, angle: float) -> Mask:
        x, y, centre = grid(size)
        inner_radius = size / 2 * math.cos(math.pi / corners)
        directions = [angle + 2 * math.pi * edge / corners for edge in range(corners)]
        along = [(x - centre) * math.cos(each) + (y - centre) * math.sin(each) for each in directions]
        inside: Mask = np.max(along, axis=0) <= inner_radius
        return inside

    return shape


_SHAPES = (_disc, _ring, _polygon(3), _polygon(4))
"""Each draws a shape of a size in pixels, turned by an angle, on a square of that side."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One image with its objects."""

    image: NDArray[np.uint8]
    """(64, 64, 3) RGB."""
    instances: NDArray[np.uint8]
    """(64, 64): 0 where the background is seen, k where object k is, from 1."""
    classes: NDArray[np.int64]
    """(k,) index into CLASSES of each object."""


def scene(seed: int, index: int) -> Scene:
    """Scene `index` of the endless sequence of `seed`."""
    layout = uniforms(Purpose.SCENE, seed, index, _LAYOUT, count=1 + OBJECTS * _DRAWS_OF_OBJECT)
    image = _filled(seed, index, _BACKGROUND, SIDE, _BACKGROUNDS)
    instances = np.zeros((SIDE, SIDE), dtype=np.uint8)
    classes: list[int] = []
    drawn, seen = np.zeros((2, OBJECTS + 1))  # pixels of each object
    for numbers in layout[1:].reshape(OBJECTS, -1)[: 1 + int(layout[0] * OBJECTS)]:
        kind, size = int(numbers[0] * len(CLASSES)), SIZES[0] + int(numbers[1] * (SIZES[1] - SIZES[0] + 1))
        shape = _SHAPES[int(numbers[2] * len(_SHAPES))](size, numbers[3] * 2 * math.pi)
        # An object for which no place is found is left out.
        for across, down in numbers[4:].reshape(_TRIES, 2):
            left, top = int(across * (SIDE - size + 1)), int(down * (SIDE - size + 1))
            region = np.s_[top : top + size, left : left + size]
            left_over = seen - np.bincount(instances[region][shape], minlength=OBJECTS + 1)
            if (left_over[1:] >= VISIBLE * drawn[1:]).all():
                classes.append(kind)
                number = len(classes)
                seen = left_over
                seen[number] = drawn[number] = shape.sum()
                instances[region][shape] = number
                fill = _filled(seed, index, _BACKGROUND + number, size, (FAMILIES[CLASSES[kind]],))
                image[region][shape] = fill[shape]
                break
    return Scene(levels(image), instances, np.array(classes, dtype=np.int64))


def _filled(seed: int, index: int, stream: int, side: int, families: tuple[Family, ...]) -> Plane:
    """A square of one of the families, (side, side, 3)."""
    numbers = uniforms(Purpose.SCENE, seed, index, stream, count=1 + draws_for(side))
    return painted(families[int(numbers[0] * len(families))], Draws(numbers[1:], side))


class Scenes:
    """Scenes that are held in memory."""

    classes = CLASSES
    has_masks = True
    ignored_are_difficult = False

    def __init__(self, scenes: list[Scene]) -> None:
        self._scenes = scenes
        digest = hashlib.sha256(repr((CLASSES, len(scenes), SIDE)).encode())
        for each in scenes:
            for array in (each.image, each.instances, each.classes.astype("<i8")):
                digest.update(array.data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._scenes)

    def image(self, index: int) -> NDArray[np.uint8]:
        return self._scenes[index].image

    def name(self, index: int) -> str:
        return str(range(len(self))[index])

    def size(self, index: int) -> tuple[int, int]:
        height, width = self._scenes[index].instances.shape
        return height, width

    def annotation(self, index: int) -> Annotation:
        """Boxes are tight around what is seen of an object, its mask; no object is to be ignored."""
        of = self._scenes[index]
        count = len(of.classes)
        masks: Mask = of.instances == np.arange(1, count + 1)[:, None, None]
        boxes = np.array([_box(mask) for mask in masks], dtype=np.float32)
        return Annotation(boxes, of.classes.copy(), np.zeros(count, dtype=np.bool_), masks)

    def with_masks(self, tick: Callable[[], None], *, first: int | None = None) -> tuple[Scenes, MaskFaults]:
        return self, MaskFaults()

    def presence(self) -> NDArray[np.int8]:
        present = np.zeros((len(self), len(CLASSES)), dtype=np.int8)
        for row, each in zip(present, self._scenes, strict=True):
            row[each.classes] = 1
        return present

    def box_counts(self) -> BoxCounts:
        objects = np.array([len(each.classes) for each in self._scenes], dtype=np.int64)
        none = np.zeros_like(objects)
        return BoxCounts(objects, none, none, none)


def _box(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of a mask; right and bottom are the first outside."""
    across, down = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1


_opened: dict[tuple[str, int], Scenes] = {}


def open_scenes(split: str, seed: int = 0, *, tick: Callable[[], None] = lambda: None) -> Scenes:
    """Split `train` (2,000 scenes) or `test` (500), generated in memory.

    `tick` is called for every image.
    """
    if (split, seed) not in _opened:
        first = 0 if split == "train" else SPLITS["train"]
        scenes = []
        for index in range(first, first + SPLITS[split]):
            scenes.append(scene(seed, index))
            tick()
        _opened[split, seed] = Scenes(scenes)
    return _opened[split, seed]
