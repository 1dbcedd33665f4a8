"""A data set from a folder of image files without labels, flat or nested in any way: for pretraining alone.

Links to folders are followed where they stand in the split's folder itself and lead out of it; deeper ones, which might
lead round in a circle, are passed over, as is all that trainer.data.formats.image_tree passes over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from barlow_lab.specs.data_sets import ImagesSource
from trainer.data.errors import DataError
from trainer.data.formats.image_tree import images_below
from trainer.data.formats.images_of_tests import ImagesOfTests
from trainer.data.formats.passed_over import PassedOver
from trainer.data.image_files import FileImages, PackedNames


class UnlabelledFolder(FileImages):
    """All images below a folder, in the order of the bytes of their paths, or drawn."""

    classes: tuple[str, ...] = ()

    def __init__(self, folder: Path, images: list[tuple[bytes, int, int]]) -> None:
        """`images` are (path below `folder`, size in bytes, identity of the file) each, in any order."""
        self._folder = os.fsencode(folder)
        self._names = PackedNames()
        digest = hashlib.sha256(b"images\0")
        images = sorted(images)
        self.identities = np.array([identity for _, _, identity in images], dtype=np.int64)
        self.file_sizes = np.array([size for _, size, _ in images], dtype=np.int64)
        for name, size, _ in images:
            self._names.append(name)
            digest.update(b"%b\0%d\0" % (name, size))
        self.fingerprint = digest.hexdigest()
        """A digest of names and sizes, not of the content; drawn images have another."""
        self._order = np.arange(len(images))

    def __len__(self) -> int:
        return len(self._names)

    def draw(self) -> None:
        """From now on, and once: the images come in the order of the SHA-256 of their paths. So any beginning is of all
        folders as these are large, and a shorter one is a part of a longer one; in the order of paths it is of the
        first folders alone."""
        drawn = [int.from_bytes(hashlib.sha256(self._names[place]).digest()[:8]) for place in range(len(self))]
        self._order = np.argsort(np.array(drawn, dtype=np.uint64), kind="stable")
        self.identities, self.file_sizes = self.identities[self._order], self.file_sizes[self._order]
        self.fingerprint = hashlib.sha256(f"{self.fingerprint} drawn".encode()).hexdigest()

    def _path(self, index: int) -> bytes:
        return self._names[self._order[index]]


def open_unlabelled_folder(
    name: str, source: ImagesSource, split: str, *, tick: Callable[[], None], warn: Callable[[str], None]
) -> UnlabelledFolder:
    """Open a split of the data set `name`; `tick` is called for every file, `warn` told what was passed over.

    Raises:
        DataError: there is no such folder, or no image below it.
        OSError: a folder cannot be read.
    """
    folder = source.root / source.splits[split]
    if not folder.is_dir():
        raise DataError(f"data set {name!r} has no folder {folder} on this host; correct its path, or mount the disk")
    passed = PassedOver()
    images = images_below(os.fsencode(folder), tick, passed, links_at_top=True)
    others = "; ".join(passed.words(str(folder), notes=not images))
    if not images:
        raise DataError(f"no image is below {folder}{f' ({others})' if others else ''}: put images there")
    if others:
        warn(f"data set {name!r}, split {split!r}: {others}")
    ImagesOfTests(source, split).warn(name, (path for path, _, _ in images), warn)
    return UnlabelledFolder(folder, images)
