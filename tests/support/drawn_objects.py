"""A small data set of coloured rectangles and discs on noise, with boxes and masks, for tests of detection."""

from __future__ import annotations

import hashlib

import numpy as np

from trainer.data.datasets import Annotation, BoxCounts, MaskFaults
from trainer.data.errors import UnreadableImage

CLASSES = ("rectangle", "disc")


class DrawnObjects:
    """`count` images of sides up to `side`; `ignored` marks the second object of each image (as a crowd, or with
    `ignored_are_difficult` as difficult), `without` are images with no object, `unreadable` are those that cannot be
    read, `damaged` those whose objects cannot."""

    classes = CLASSES
    has_masks = True

    def __init__(
        self,
        count: int,
        *,
        side: int = 64,
        odd: bool = False,
        seed: int = 0,
        ignored: bool = False,
        without: tuple[int, ...] = (),
        unreadable: tuple[int, ...] = (),
        damaged: tuple[int, ...] = (),
        has_masks: bool = True,
        ignored_are_difficult: bool = False,
    ) -> None:
        self.has_masks, self.ignored_are_difficult = has_masks, ignored_are_difficult
        self._unreadable, self._damaged = unreadable, damaged
        self._rows = [
            _drawn(np.random.default_rng([seed, index]), side, odd, ignored, 0 if index in without else None)
            for index in range(count)
        ]
        self.fingerprint = hashlib.sha256(repr((count, side, odd, seed, ignored, without)).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return str(index)

    def image(self, index: int) -> np.ndarray:
        if index in self._unreadable:
            raise UnreadableImage(f"{index}.png", "truncated")
        return self._rows[index][0]

    def annotation(self, index: int) -> Annotation:
        if index in self._damaged:
            raise UnreadableImage(f"{index}.png", "a box is not in the image")
        there = self._rows[index][1]
        return there if self.has_masks else Annotation(there.boxes, there.classes, there.ignored, None)

    def with_masks(self, tick, *, first=None):
        return self, MaskFaults()

    def size(self, index: int) -> tuple[int, int]:
        return self._rows[index][0].shape[:2]

    def presence(self) -> np.ndarray:
        out = np.zeros((len(self), len(CLASSES)), dtype=np.int8)
        for row, (_, there) in zip(out, self._rows, strict=True):
            row[there.classes[there.ignored]] = -1
            row[there.classes[~there.ignored]] = 1
        return out

    def box_counts(self) -> BoxCounts:
        there = [each for _, each in self._rows]
        learned = [len(each.classes) - (0 if self.ignored_are_difficult else int(each.ignored.sum())) for each in there]
        none = np.zeros(len(self), dtype=np.int64)
        ignored = np.array([int(each.ignored.sum()) for each in there], dtype=np.int64)
        return BoxCounts(np.array(learned, dtype=np.int64), none, none, ignored)


def _drawn(
    rng: np.random.Generator, side: int, odd: bool, ignored: bool, objects: int | None
) -> tuple[np.ndarray, Annotation]:
    height, width = (int(n) for n in rng.integers(side * 3 // 4, side + 1, 2)) if odd else (side, side)
    image = rng.integers(90, 160, (height, width, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width] + 0.5
    boxes, classes, masks = [], [], []
    half = width // 2
    for place in range(2 if objects is None else objects):  # one in the left half, one in the right
        wide, high = (int(n) for n in rng.integers(14, 24, 2))
        left = place * half + int(rng.integers(0, half - wide + 1))
        top = int(rng.integers(0, height - high + 1))
        of = int(rng.integers(2))
        inside = (columns > left) & (columns < left + wide) & (rows > top) & (rows < top + high)
        if of:
            inside &= ((columns - left - wide / 2) / wide) ** 2 + ((rows - top - high / 2) / high) ** 2 < 0.25
        image[inside] = (230, 60, 40) if of else (40, 80, 230)
        where_r, where_c = np.nonzero(inside)
        boxes.append([where_c.min(), where_r.min(), where_c.max() + 1, where_r.max() + 1])
        classes.append(of)
        masks.append(inside)
    count = len(boxes)
    return image, Annotation(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(classes, dtype=np.int64),
        np.array([ignored and place == 1 for place in range(count)], dtype=bool),
        np.array(masks, dtype=bool).reshape(count, height, width),
    )
