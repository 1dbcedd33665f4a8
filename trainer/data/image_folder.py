"""A data set from a tree of image files: ROOT/SPLIT/CLASS/IMAGE.

A split is always a folder of the root, and a class a folder of the split; images without classes stand in one class
folder, of any name. Within a class folder images may lie in folders of their own. Root, split, class and image may be
symbolic links; links to folders below a class folder are passed over, so that no loop is walked. What begins with a
dot is not looked at. Names are bytes: neither the locale nor the encoding of the disk changes the order.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.errors import DataError
from trainer.data.image_files import base_name, printable, read_image, said
from trainer.specs.words import shown

ENDINGS = (b"jpg", b"jpeg", b"png", b"webp", b"bmp", b"gif", b"tif", b"tiff", b"ppm", b"pgm", b"pbm")
"""Endings of image files, in any case. They decide what is an image; its content decides how it is decoded."""

LAYOUT = "images are looked for as ROOT/SPLIT/CLASS/IMAGE"


@dataclass(frozen=True, slots=True)
class ClassImages:
    """The images of one class folder, sorted by the bytes of their names below it.

    Names are one text, without separators: a million of them as objects would take 300 MB a rank.
    """

    names: bytes
    lengths: NDArray[np.int64]
    """(n,) bytes of each name."""
    digest: bytes
    """SHA-256 of names and sizes."""

    @classmethod
    def of(cls, images: list[tuple[bytes, int]]) -> ClassImages:
        """Of (name, size in bytes) each, in any order."""
        images.sort()
        digest = hashlib.sha256(b"".join(b"%b\0%d\0" % image for image in images)).digest()
        lengths = np.array([len(name) for name, _ in images], dtype=np.int64)
        return cls(b"".join(name for name, _ in images), lengths, digest)


class ImageFolder:
    """One split of a tree of image files.

    Images come one of each class in turn, within a class in the order of their names, so that any beginning of the
    data set holds as many classes as it can.
    """

    def __init__(self, folder: Path, found: dict[bytes, ClassImages]) -> None:
        """`found` holds the images of each class folder, in the order of the classes."""
        self._folder = os.fsencode(folder)
        self._class_names = list(found)
        self.classes = tuple(printable(name) for name in found)
        counts = [len(images.lengths) for images in found.values()]
        labels = np.repeat(np.arange(len(found), dtype=np.int64), counts)
        places = np.concatenate([np.arange(count) for count in counts])
        self._order = np.lexsort((labels, places))
        self._labels: NDArray[np.int64] = labels[self._order]
        self._names = b"".join(images.names for images in found.values())
        self._ends = np.cumsum(np.concatenate([images.lengths for images in found.values()]))
        digest = hashlib.sha256()
        for name, images in found.items():
            digest.update(b"%b\0%b" % (name, images.digest))
        self.fingerprint = digest.hexdigest()
        """Of classes, names and sizes. Not of the content: reading all of ImageNet takes longer than many a run."""

    def __len__(self) -> int:
        return len(self._labels)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB.

        Raises:
            UnreadableImage: the file is not there, may not be read, or is no image.
            OSError: the disk does not give it, or is not there any more.
        """
        return read_image(self._folder, self._path(index))

    def name(self, index: int) -> str:
        return base_name(self._path(index))

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def labels(self) -> NDArray[np.int64]:
        return self._labels.copy()

    def _path(self, index: int) -> bytes:
        """CLASS/IMAGE"""
        place = self._order[index]
        start = self._ends[place - 1] if place else 0
        return os.path.join(self._class_names[self._labels[index]], self._names[start : self._ends[place]])


def open_image_folder(
    name: str, root: Path, split: str, *, tick: Callable[[], None], warn: Callable[[str], None]
) -> ImageFolder:
    """Open the split of the data set `name` below `root`; `tick` is called for every file.

    `warn` is told how many files of which endings were passed over.

    Raises:
        DataError: no such folder, no class folder in it, or a class folder without an image.
    """
    folder = root / split
    try:
        classes = _classes(name, root, split)
        passed_over: Counter[str] = Counter()
        found = {each: _images(os.path.join(os.fsencode(folder), each), tick, passed_over) for each in classes}
    except OSError as error:
        raise DataError(f"data set {name!r} cannot be read: {error.strerror}: {_shown(error.filename)}") from error
    others = f"passed over: {_counted(passed_over)}; endings of images are {_endings()}" if passed_over else ""
    empty = [printable(each) for each, images in found.items() if not len(images.lengths)]
    if empty:
        more = f" and in {len(empty) - 3} more" if len(empty) > 3 else ""
        raise DataError(
            f"no image in class folder {', '.join(map(repr, empty[:3]))}{more} of {folder}: put images there, or take "
            f"the folder away{f' ({others})' if others else ''}"
        )
    if others:
        warn(f"data set {name!r}, split {split!r}: files {others}")
    return ImageFolder(folder, found)


def _classes(name: str, root: Path, split: str) -> list[bytes]:
    """The class folders of a split, in the order of their bytes.

    Raises:
        DataError: there is none.
    """
    if not root.is_dir():
        raise DataError(f"data set {name!r} has no folder {root} on this host; correct its path, or mount the disk")
    folder = root / split
    if not folder.is_dir():
        there = sorted(said(entry.name) for entry in _entries(os.fsencode(root)) if entry.is_dir())
        near = difflib.get_close_matches(split, there, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its folders: {', '.join(there[:10]) or 'none'}"
        raise DataError(f"data set {name!r} has no split {split!r} in {root}; {hint} ({LAYOUT})")
    entries = list(_entries(os.fsencode(folder)))
    classes = sorted(entry.name for entry in entries if entry.is_dir())
    if not classes:
        loose = sum(_ending(entry.name) in ENDINGS for entry in entries)
        stand = f"{loose:,} images stand in {folder} itself" if loose else f"{folder} is empty"
        raise DataError(
            f"data set {name!r}: {stand}, and no class folder is in it ({LAYOUT}); "
            "images without classes go into one class folder of any name"
        )
    return classes


def _images(folder: bytes, tick: Callable[[], None], passed_over: Counter[str]) -> ClassImages:
    images: list[tuple[bytes, int]] = []
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        for entry in _entries(os.path.join(folder, below)):
            tick()
            if entry.is_dir(follow_symlinks=False):
                waiting.append(os.path.join(below, entry.name))
                continue
            ending = _ending(entry.name)
            if ending not in ENDINGS:
                passed_over[f".{said(ending)}" if ending else "no ending"] += 1
                continue
            try:
                status = entry.stat()
            except OSError:
                passed_over["dead link"] += 1
                continue
            if stat.S_ISREG(status.st_mode):
                images.append((os.path.join(below, entry.name), status.st_size))
            else:
                passed_over["no regular file"] += 1
    return ClassImages.of(images)


def _entries(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith(b"."))


def _ending(name: bytes) -> bytes:
    return os.path.splitext(name)[1][1:].lower()


def _endings() -> str:
    return ", ".join(f".{ending.decode()}" for ending in ENDINGS)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} x {what}" for what, count in counts.most_common(8))


def _shown(path: object) -> str:
    return said(path) if isinstance(path, bytes) else shown(str(path))
