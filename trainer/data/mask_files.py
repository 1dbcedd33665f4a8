"""Images of a split that are masks of others of it: paired by the names of files or of their folders, and looked at.

Names alone say little: a class may be called `masks`, and its files be numbered as those of the class beside it are. So
some of those that pair are read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from trainer.data.decoding.reading import Reading
from trainer.data.errors import UnreadableImage
from trainer.data.image_files import FileImages, read_image, said

_WORDS = (
    rb"masks?|segs?|segmented|segmentations?|segmentation_?(?:class|object)|labels?|label_?ids|instance_?ids|gt|gtfine|"
    rb"ground[ _-]?truths?|annots?|annos?|annotations?|trimaps?|mattes?"
)
"""What people call masks, in the names of files and of folders,"""
_IN_WORDS = (b"mask", b"seg", b"label", b"instance", b"gt", b"truth", b"anno", b"trimap", b"matte")
"""one of which is in each of these,"""
_OF_IMAGES = rb"image|images|img|im|rgb|sat|orig|original"
"""and images beside them."""
_BETWEEN = rb"[ _.\-]"
_MASK_FOLDER = re.compile(rb"(?:.*%b)?(?:%b)" % (_BETWEEN, _WORDS), re.IGNORECASE)
_MASK_NAME = re.compile(
    rb"(?P<before>.+?)(?:%b+(?:%b))+(?:%b*[0-9]+)?|(?:%b)%b+(?P<after>.+)"
    % (_BETWEEN, _WORDS, _BETWEEN, _WORDS, _BETWEEN),
    re.IGNORECASE,
)
_IMAGE_NAME = re.compile(
    rb"(?P<before>.+?)%b+(?:%b)|(?:%b)%b+(?P<after>.+)" % (_BETWEEN, _OF_IMAGES, _OF_IMAGES, _BETWEEN), re.IGNORECASE
)

LOOKED_AT = 16
"""Pairs of which both images are read."""
MOST_COLOURS = 16
"""Colours that a mask may have,"""
OF_MASK = 0.9
"""and the share of it that they make up at least: the rest are edges, as a lossy format leaves them."""


def masks_of_others(images: FileImages, tick: Callable[[], None]) -> tuple[str, list[int]] | None:
    """What to say of masks among the images, and their places; None: there are none. `tick` is called for each.

    Raises:
        OSError: the disk does not give them.
    """
    pairs = _pairs(images, tick)
    if not pairs:
        return None
    drawn = [pairs[place] for place in np.unique(np.linspace(0, len(pairs) - 1, LOOKED_AT, dtype=np.int64)).tolist()]
    alike = [(mask, image) for mask, image in drawn if _is_mask(images, mask, image, tick)]
    if 2 * len(alike) < len(drawn):
        return None
    mask, image = (said(_below(images, place)) for place in alike[0])
    told = (
        f"{len(pairs):,} of {len(images):,} images look like masks of others by their names, and {len(alike)} of "
        f"{len(drawn)} of them that were looked at by their pixels, first {mask}, of {image}: they are taken as all "
        "images are; if that is not meant, put them into a folder beside those of the splits"
    )
    return told, [mask for mask, _ in pairs]


def _pairs(images: FileImages, tick: Callable[[], None]) -> list[tuple[int, int]]:
    """Places of masks and of their images, by names alone."""
    folders, prefix = _Folders(), len(os.path.join(images.folder, b""))
    masks: list[int] = []
    for place in range(len(images)):
        tick()
        folder, _, name = images.file(place)[prefix:].rpartition(b"/")
        if folders.of_masks(folder) or _is_called_mask(name):
            masks.append(place)
    if not masks:
        return []
    wanted: dict[int, list[int]] = {}
    for mask in masks:
        for key in folders.of_mask(images.file(mask)[prefix:]):
            wanted.setdefault(key, []).append(mask)
    found: dict[int, int] = {}
    are_masks = set(masks)
    for place in range(len(images)):
        tick()
        if place not in are_masks:
            for key in folders.of_image(images.file(place)[prefix:]):
                for mask in wanted.get(key, ()):
                    found.setdefault(mask, place)
    return sorted(found.items())


class _Folders:
    """Keys that masks share with their images: hashes of a folder that holds both, in one folder each or itself, of the
    folders below that, and of the name without what says mask or image."""

    def __init__(self) -> None:
        self._places: dict[bytes, list[int]] = {}
        self._parents: set[bytes] = set()
        """Folders in which one is called as masks are."""

    def of_masks(self, folder: bytes) -> list[int]:
        """Places in the path of those folders that are called as masks are."""
        if folder not in self._places:
            parts = folder.split(b"/")
            self._places[folder] = [place for place, part in enumerate(parts) if _MASK_FOLDER.fullmatch(part)]
            self._parents |= {b"/".join(parts[:place]) for place in self._places[folder]}
        return self._places[folder]

    def of_mask(self, path: bytes) -> Iterator[int]:
        """Of a mask: none of its whole name in its own folder, which it has itself."""
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]
        parts = folder.split(b"/")
        bare = _bare(_MASK_NAME, stem)
        for one in bare:
            yield hash((folder, b"", one))
        for place in self.of_masks(folder):
            for one in (stem, *bare):
                yield hash((b"/".join(parts[:place]), b"/".join(parts[place + 1 :]), one))

    def of_image(self, path: bytes) -> Iterator[int]:
        """Of an image."""
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]
        for one in (stem, *_bare(_IMAGE_NAME, stem)):
            yield hash((folder, b"", one))
            parts = folder.split(b"/") if self._parents else []
            for place in range(len(parts)):
                if (parent := b"/".join(parts[:place])) in self._parents:
                    yield hash((parent, b"/".join(parts[place + 1 :]), one))


def _is_called_mask(name: bytes) -> bool:
    lowered = name.lower()  # a search among words is a third of the time of the pattern
    return any(word in lowered for word in _IN_WORDS) and bool(_MASK_NAME.fullmatch(os.path.splitext(name)[0]))


def _bare(pattern: re.Pattern[bytes], stem: bytes) -> list[bytes]:
    found = pattern.fullmatch(stem)
    return [found["before"] or found["after"]] if found else []


def _below(images: FileImages, place: int) -> bytes:
    return images.file(place)[len(os.path.join(images.folder, b"")) :]


def _is_mask(images: FileImages, mask: int, image: int, tick: Callable[[], None]) -> bool:
    """Whether the one looks like a mask of the other: of its form, of few colours, and the other of more."""
    tick()
    with suppress(UnreadableImage):
        one, other = (read_image(images.folder, _below(images, place), Reading(), place) for place in (mask, image))
        (height, width), (rows, columns) = one.shape[:2], other.shape[:2]
        if abs(height * columns - width * rows) <= 0.02 * height * columns:
            return _share_of_few(one) >= max(OF_MASK, _share_of_few(other) + 0.01)
    return False


def _share_of_few(levels: NDArray[np.uint8]) -> float:
    """Which share of an image, (H, W, 3), its MOST_COLOURS most frequent colours make up."""
    red, green, blue = levels.reshape(-1, 3).astype(np.int64).T
    _, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    return float(np.sort(counts)[-MOST_COLOURS:].sum() / counts.sum())
