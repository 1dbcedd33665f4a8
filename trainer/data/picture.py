"""A picture of views: what a person looks at before trusting the augmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.data.batch import Batch
from trainer.data.datasets import Images
from trainer.data.photometry import finish

PICTURE_IMAGES = 8
_CELL = 96


def write_views_picture(path: Path, dataset: Images, batch: Batch) -> None:
    """Write a PNG of the first rows of a batch, a column each: the image, its view a, its view b."""
    size = batch.size
    rows = [finished.permute(0, 2, 3, 1).numpy() for finished in finish(batch, torch.device("cpu"))]
    columns = []
    for row, index in enumerate(batch.indices[:PICTURE_IMAGES].tolist()):
        whole = Image.fromarray(dataset.image(index)).resize((size, size), Image.Resampling.BICUBIC)
        columns.append(np.concatenate([np.asarray(whole), *(view[row] for view in rows)]))
    picture = Image.fromarray(np.concatenate(columns, axis=1))
    enlarge = max(1, _CELL // size)
    picture.resize((picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST).save(path, "PNG")
