"""How many objects the images of a split have, where that bounds what a detector learns or what it can find."""

from __future__ import annotations

import numpy as np

from trainer.data.datasets import AnnotatedDataSet

MOST_FOUND = 100
"""Detections of an image that a detector gives and COCO's rule counts."""
MANY_WITHOUT = 0.1
"""The part of a split's images that have no object. Of COCO's train2017 it is one in a hundred."""


def more_than_found(images: AnnotatedDataSet) -> str | None:
    """That some images have more objects than are found at most, for whoever tests on them; None: none has."""
    boxes = images.box_counts()
    asked = boxes.objects - boxes.ignored if images.ignored_are_difficult else boxes.objects
    count, every = int((asked > MOST_FOUND).sum()), int(asked.sum())
    if not count:
        return None
    found = int(np.minimum(asked, MOST_FOUND).sum())
    return (
        f"{count:,} of {len(images):,} images have more than {MOST_FOUND} objects, of which a test finds "
        f"{MOST_FOUND} at most, as in COCO's rule: recall cannot pass {_floor(100 * found / every)} % "
        f"({found:,} of {every:,} objects), nor can average precision by much. Cut such images into tiles"
    )


def many_without(images: AnnotatedDataSet) -> str | None:
    """That many images, not all, have no object; None: as few as in other sets, or all, of which readers tell."""
    boxes = images.box_counts()
    count = int(((boxes.objects == 0) & (boxes.ignored == 0)).sum())
    if count == len(images) or count < MANY_WITHOUT * len(images):
        return None
    return (
        f"{count:,} of {len(images):,} images have no object: a detector learns nothing of them, and what it finds in "
        "them counts as wrong in a test. Is the export unfinished, complete it, or leave these images out"
    )


def _floor(percent: float) -> str:
    return f"{np.floor(percent * 10) / 10:.1f}"
