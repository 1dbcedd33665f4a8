"""Images of one grey level, for tests, which tells one from the other."""

import os
from pathlib import Path

from PIL import Image


def put(path, level=0, kind="PNG"):
    """An image of one grey level, 4x6 pixels; the ending of its name need not be that of its kind."""
    Path(os.fsdecode(path)).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Image.new("L", (6, 4), level).save(file, kind)


def levels(data):
    return [int(data.image(index)[0, 0, 0]) for index in range(len(data))]
