"""A picture of detections: what a person looks at before trusting a number."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from trainer.data.datasets import Annotation
from trainer.data.views.picture import in_square
from trainer.models.detectors.c4 import Detections

SHOWN_SCORE = 0.5
_CELL = 240
_GAP = 6


@dataclass(frozen=True, slots=True)
class Row:
    """An image (H, W, 3) uint8, what is there and what was found."""

    image: np.ndarray
    truth: Annotation
    found: Detections


def write_detections_picture(path: Path, rows: list[Row], classes: tuple[str, ...]) -> None:
    """Write a square PNG, a column for each image, at most four beside one another: above what is there (ignored
    objects in grey), below what was found with a score of at least one half. A class has one colour."""
    cells = []
    for row in rows:
        there = list(_objects(row.truth.boxes, row.truth.classes, row.truth.masks))
        greys = [bool(one) for one in row.truth.ignored]
        shown = np.flatnonzero(row.found.scores.cpu().numpy() >= SHOWN_SCORE)
        masks = None if row.found.masks is None else row.found.masks.cpu().numpy()[shown]
        boxes, of = row.found.boxes.float().cpu().numpy()[shown], row.found.classes.cpu().numpy()[shown]
        scores = row.found.scores.cpu().numpy()[shown]
        found = list(_objects(boxes, of, masks))
        truth_words = [classes[int(one)] for one in row.truth.classes]
        found_words = [f"{classes[int(c)]} {s:.2f}" for c, s in zip(of, scores, strict=True)]
        cells.append(
            np.concatenate(
                [
                    _drawn(row.image, there, truth_words, greys, len(classes)),
                    _drawn(row.image, found, found_words, [False] * len(found), len(classes)),
                ]
            )
        )
    Image.fromarray(in_square(cells, across=4)).save(path, "PNG")


_Object = tuple[np.ndarray, int, np.ndarray | None]


def _objects(boxes: np.ndarray, classes: np.ndarray, masks: np.ndarray | None) -> Iterator[_Object]:
    for place, (box, of) in enumerate(zip(boxes, classes, strict=True)):
        yield box, int(of), None if masks is None else masks[place]


def _drawn(image: np.ndarray, objects: list[_Object], words: list[str], greys: list[bool], classes: int) -> np.ndarray:
    """A cell: the image as large as fits at its upper left, masks half transparent, boxes with their words."""
    painted = image.astype(np.float32)
    colours = [
        (128, 128, 128) if grey else _colour(of, classes) for (_, of, _), grey in zip(objects, greys, strict=True)
    ]
    for (_, _, mask), colour in zip(objects, colours, strict=True):
        if mask is not None:
            where = mask.astype(bool)
            painted[where] = 0.5 * painted[where] + 0.5 * np.array(colour, dtype=np.float32)
    scale = _CELL / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    cell = Image.new("RGB", (_CELL + _GAP, _CELL + _GAP), "white")
    cell.paste(Image.fromarray(painted.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR))
    draw = ImageDraw.Draw(cell)
    for (box, _, _), colour, word in zip(objects, colours, words, strict=True):
        left, top, right, bottom = (float(side) * scale for side in box)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
        draw.text((left + 3, top + 1), word, fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(cell)


def _colour(of: int, classes: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(of / max(classes, 1), 1.0, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)
