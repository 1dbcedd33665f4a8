"""A data set from a tree of image files: ROOT/SPLIT/CLASS/IMAGE.

A split is always a folder of the root, and a class a folder of the split; images without classes stand in one class
folder, of any name, or are taken as `format: images` (trainer.data.formats.unlabelled_folder). Within a class folder
images may lie in folders of their own. Root, split, class and image may be symbolic links; links to folders below a
class folder are passed over, as is all that trainer.data.formats.image_tree passes over.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from barlow_lab.foreign_text import shown
from barlow_lab.specs.data_sets import ImageFolderSource
from trainer.data.errors import DataError
from trainer.data.formats.image_tree import entries, entry_ending, images_below, is_folder
from trainer.data.formats.images_of_tests import ImagesOfTests, is_called_as_test
from trainer.data.formats.leftovers import is_leftover
from trainer.data.formats.passed_over import ENDINGS, PassedOver
from trainer.data.image_files import FileImages, printable, said

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
    identities: NDArray[np.int64]
    """(n,) of the files."""
    sizes: NDArray[np.int64]
    """(n,) bytes of the files."""

    @classmethod
    def of(cls, images: list[tuple[bytes, int, int]]) -> ClassImages:
        """The images of (name, size in bytes, identity of the file) each, in any order."""
        images.sort()
        digest = hashlib.sha256(b"".join(b"%b\0%d\0" % image[:2] for image in images)).digest()
        lengths = np.array([len(name) for name, _, _ in images], dtype=np.int64)
        identities = np.array([identity for _, _, identity in images], dtype=np.int64)
        sizes = np.array([size for _, size, _ in images], dtype=np.int64)
        return cls(b"".join(name for name, _, _ in images), lengths, digest, identities, sizes)

    def paths(self) -> Iterator[bytes]:
        """Each name."""
        ends = np.cumsum(self.lengths).tolist()
        return (self.names[start:end] for start, end in itertools.pairwise([0, *ends]))


class ImageFolder(FileImages):
    """One split of a tree of image files.

    Images come one of each class in turn, within a class in the order of their names, so that any beginning of the
    data set holds as many classes as it can.
    """

    def __init__(self, folder: Path, found: dict[bytes, ClassImages]) -> None:
        """`found` holds the images of each class folder, in the order of the classes."""
        self._folder = os.fsencode(folder)
        self._class_names = list(found)
        self.nested = _nested(found)
        """Class folders that hold folders of images alone, with the names of these: the classes may be these."""
        self.classes = tuple(printable(name) for name in found)
        counts = [len(images.lengths) for images in found.values()]
        labels = np.repeat(np.arange(len(found), dtype=np.int64), counts)
        places = np.concatenate([np.arange(count) for count in counts])
        self._order = np.lexsort((labels, places))
        self._labels: NDArray[np.int64] = labels[self._order]
        self.identities = np.concatenate([images.identities for images in found.values()])[self._order]
        self.file_sizes = np.concatenate([images.sizes for images in found.values()])[self._order]
        self._names = b"".join(images.names for images in found.values())
        self._ends = np.cumsum(np.concatenate([images.lengths for images in found.values()]))
        digest = hashlib.sha256()
        for name, images in found.items():
            digest.update(b"%b\0%b" % (name, images.digest))
        self.fingerprint = digest.hexdigest()
        """A digest of classes, names and sizes. Not of the content: reading all of ImageNet takes longer than many a
        run."""

    def __len__(self) -> int:
        return len(self._labels)

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
    name: str, source: ImageFolderSource, split: str, *, tick: Callable[[], None], warn: Callable[[str], None]
) -> ImageFolder:
    """Open a split of the data set `name`; `tick` is called for every file.

    `warn` is told what of the split's folder was passed over, and which of its classes are images of a test.

    Raises:
        DataError: no such folder, no class folder in it, or a class folder without an image.
    """
    below = source.splits.get(split, split)
    folder = source.root / below
    passed = PassedOver()
    try:
        classes = _classes(name, source.root, below, passed, tick)
        found = {each: ClassImages.of(images_below(os.fsencode(folder), tick, passed, start=each)) for each in classes}
    except OSError as error:
        raise DataError(f"data set {name!r} cannot be read: {error.strerror}: {_shown(error.filename)}") from error
    empty = [printable(each) for each, images in found.items() if not len(images.lengths)]
    if empty:
        more = f" and in {len(empty) - 3} more" if len(empty) > 3 else ""
        there = sum(len(images.lengths) for images in found.values())
        others = "; ".join(passed.words(str(folder), notes=True))
        beside = f", whose other class folders hold {there:,} images" if there else ""
        raise DataError(
            f"no image in class folder {', '.join(map(repr, empty[:3]))}{more} of {folder}{beside}: put images there, "
            f"or take the folder away{f' ({others})' if others else ''}"
        )
    if others := "; ".join(passed.words(str(folder))):
        warn(f"data set {name!r}, split {below!r}: {others}")
    tests = ImagesOfTests(source, split)
    tests.warn_of_classes(name, found, warn)
    in_question = (each for each in found if tests.may_be_in(each) or tests.may_hold(found[each].names))
    tests.warn(name, (os.path.join(each, path) for each in in_question for path in found[each].paths()), warn)
    return ImageFolder(folder, found)


def _classes(name: str, root: Path, split: str, passed: PassedOver, tick: Callable[[], None]) -> list[bytes]:
    """The class folders of a split, in the order of their bytes.

    Raises:
        DataError: there is none.
    """
    if not root.is_dir():
        raise DataError(f"data set {name!r} has no folder {root} on this host; correct its path, or mount the disk")
    folder = root / split
    unlabelled = (
        f"images without labels are taken as `format: images` in datasets.yaml, by hand --data {name}=images:DIR"
    )
    if not folder.is_dir():
        there, loose = [], 0
        for below, entry in entries(os.fsencode(root), b"", PassedOver(), tick):
            if is_folder(entry):
                there.append(said(below))
            loose += entry_ending(entry) in ENDINGS
        near = difflib.get_close_matches(split, there, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its folders: {', '.join(sorted(there)[:10]) or 'none'}"
        stand = f", where {loose:,} images stand; {unlabelled}" if loose else ""
        raise DataError(f"data set {name!r} has no split {split!r} in {root}; {hint} ({LAYOUT}){stand}")
    classes = []
    for below, entry in entries(os.fsencode(folder), b"", passed, tick):
        if is_folder(entry):
            classes.append(below)
        elif entry_ending(entry) in ENDINGS:
            passed.loose.add(below)
        elif is_leftover(entry.name):
            passed.leftovers.add(below)
        else:
            passed.file(entry_ending(entry))
    if not classes:
        loose = passed.loose.count
        is_held = passed.others or passed.leftovers.count or passed.hidden.count
        others = "; ".join(passed.words(str(folder), notes=True)) if is_held else ""
        held = f"no image is in {folder} ({others})" if others else f"{folder} is empty"
        stand = f"{loose:,} images stand in {folder} itself" if loose else held
        raise DataError(
            f"data set {name!r}: {stand}, and no class folder is in it ({LAYOUT}); if it is a class itself, say "
            f"`splits: {{train: .}}` for class folders right below the root; {unlabelled}"
        )
    return sorted(classes)


def _nested(found: dict[bytes, ClassImages]) -> dict[bytes, frozenset[bytes]]:
    """Class folders that hold several folders of images and no image, with the names of these.

    Not those with a single folder, as in Tiny-ImageNet (CLASS/images), nor of a tree CLASS/SPLIT, of which
    trainer.data.formats.images_of_tests tells.
    """
    nested = {}
    for each, images in found.items():
        folders = set()
        for path in images.paths():
            folder, slash, _ = path.partition(b"/")
            folders.add(folder if slash else b"")
            if not slash:  # most trees have such an image at once
                break
        if b"" not in folders and len(folders) > 1 and not any(map(is_called_as_test, [each, *folders])):
            nested[each] = frozenset(folders)
    return nested


def _shown(path: object) -> str:
    return said(path) if isinstance(path, bytes) else shown(str(path))
