"""Folders of thumbnails among the images of a split, which a program wrote beside them."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from trainer.data.image_files import FileImages, said

_FOLDER = re.compile(rb"[_@~ -]?(?:thumb(?:nail)?s?|previews?|minis|tn)(?:[_-]?[0-9x]+)?[_@~]?", re.IGNORECASE)
SMALLER = 2
"""Times that half of the others' files are longer: a class may be called so, of thumbs that are held up."""


def smaller_copies(images: FileImages, tick: Callable[[], None]) -> str | None:
    """What to say of images in folders that are called as those of thumbnails are, if their files are smaller than the
    others'; None: there are none. `tick` is called for each image."""
    called: dict[bytes, int] = {}
    """Numbers of those folders; 0: it is called otherwise."""
    which = np.zeros(len(images), dtype=np.int64)
    for place in range(len(images)):
        tick()
        folder, _, _ = images.below(place).rpartition(b"/")
        if folder not in called:
            called[folder] = len(called) + 1 if any(map(_FOLDER.fullmatch, folder.split(b"/"))) else 0
        which[place] = called[folder]
    others = images.file_sizes[which == 0]
    if len(others) in (0, len(images)):
        return None
    small = [
        number
        for number in called.values()
        if number and SMALLER * np.median(images.file_sizes[which == number]) <= np.median(others)
    ]
    if not small:
        return None
    are_small = np.isin(which, small)
    return (
        f"{int(are_small.sum()):,} of {len(images):,} images lie in folders that are called as those of thumbnails "
        f"are, and their files are smaller than the others', first {said(images.below(int(are_small.argmax())))}: they "
        "are taken as all images are; if that is not meant, put them into a folder beside those of the splits"
    )
