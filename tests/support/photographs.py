"""Photographs, copies of them, and what is told of a folder of both, for tests."""

import numpy as np
from PIL import Image

from barlow_lab.specs.data_sets import parse_source
from trainer.data.checks.inspection import told_of
from trainer.data.registry import open_images


def photo(path, seed, side=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def told(root, *, labelled=True):
    source = parse_source({"format": "image_folder" if labelled else "images", "root": str(root)})
    return told_of(open_images("own", "train", source=source), lambda: None)


def shrunk(path, to, size):
    to.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(path) as image:
        image.resize(size).save(to)
