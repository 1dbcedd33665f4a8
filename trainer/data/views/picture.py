"""A picture of views: what a person looks at before trusting the augmentations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.data.batch import Batch
from trainer.data.datasets import Images
from trainer.data.views.photometry import finish

PICTURE_IMAGES = 12
_CELL = 96


def in_square(columns: Sequence[np.ndarray], across: int) -> np.ndarray:
    """Columns (H, W, 3) uint8 of one size in bands of `across`, one below the other, in a square (S, S, 3) that is
    white where they do not fill it: pages that show many pictures give each of them a square."""
    height, width = columns[0].shape[:2]
    bands = -(-len(columns) // across)
    side = max(min(len(columns), across) * width, bands * height)
    square = np.full((side, side, 3), 255, np.uint8)
    for place, column in enumerate(columns):
        top, left = place // across * height, place % across * width
        square[top : top + height, left : left + width] = column
    return square


def write_views_picture(path: Path, dataset: Images, batch: Batch) -> None:
    """Write a square PNG of the first rows of a batch, a column each, at most six beside one another: the image, its
    view a, its view b."""
    size = batch.size
    rows = [finished.permute(0, 2, 3, 1).numpy() for finished in finish(batch, torch.device("cpu"))]
    columns = []
    for row, index in enumerate(batch.indices[:PICTURE_IMAGES].tolist()):
        whole = Image.fromarray(dataset.image(index)).resize((size, size), Image.Resampling.BICUBIC)
        columns.append(np.concatenate([np.asarray(whole), *(view[row] for view in rows)]))
    picture = Image.fromarray(in_square(columns, across=6))
    enlarge = max(1, _CELL // size)
    picture.resize((picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST).save(path, "PNG")
