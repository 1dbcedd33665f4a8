"""Images that lie below the root of a data set and are of none of its splits: counted and named, in every format."""

from __future__ import annotations

import os
import re
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from barlow_lab.foreign_text import shown
from barlow_lab.specs.common import NAME_PATTERN
from barlow_lab.specs.data_sets import DataSource, ImageFolderSource, ImagesSource
from trainer.data.datasets import Images, whole_of
from trainer.data.errors import DataError
from trainer.data.formats.beginnings import Beginnings
from trainer.data.formats.image_tree import ending_of, entries, entry_ending, images_below, is_folder
from trainer.data.formats.leftovers import is_leftover
from trainer.data.formats.opening import files_of, folders_of, record_files, splits_of
from trainer.data.formats.passed_over import ENDINGS, NOTES, OTHER_IMAGES, Named, PassedOver
from trainer.data.image_files import FileImages, identity, said

_NOTES = frozenset(ending[1:].encode() for ending in NOTES)

MOST = 5_000_000
"""Files and folders that are looked at: a root may be a whole disk."""

MOST_SECONDS = 60.0
"""The longest look at them: one rank looks while the others wait for it, and a disk may be slow."""

NAMED = 4


def unused_images(source: DataSource, opened: Mapping[str, Images], *, tick: Callable[[], None]) -> list[str]:
    """What a user is told of the images below the root that no split has; `tick` is called for every file.

    `opened` are splits that are open already, by name; what the others hold is looked up.
    """
    walk = _Walk(source, opened, tick)
    told = []
    for split in splits_of(source) or []:
        try:
            walk.use(split)
        except (DataError, OSError, ValueError) as error:  # the last of a path that has a zero byte
            told.append(f"split {split!r} cannot be read ({shown(str(error))}): its images count as those of no split")
    walk.look()
    return walk.words() + told


def is_split(folder: bytes) -> bool:
    """Whether a folder below the root of an image folder has what a split has: class folders."""
    # Hidden folders are asked for, so that nothing walks what is in them.
    there = entries(folder, b"", PassedOver(), lambda: None, hidden=True)
    return any(is_folder(entry) and not entry.name.startswith(b".") for _, entry in there)


class _Walk:
    """Below the root, and below folders elsewhere that splits name. Links to folders are followed where a split has
    images behind them."""

    def __init__(self, source: DataSource, opened: Mapping[str, Images], tick: Callable[[], None]) -> None:
        self._source = source
        self._opened = opened
        self._tick = tick
        self._root = os.fsencode(source.root)
        self._passed = PassedOver()
        self._splits: dict[bytes, bool] = {}
        """Folders of which all, or all but what lies in them loose, is a split's, by their real paths; whether that
        has been told by what opened it."""
        self._hashes = array("q")
        """Hashes of the paths of files that splits name: a million paths as objects would take 150 MB."""
        self._real: dict[bytes, bytes] = {}
        self._ways: set[bytes] = set()
        """Folders in which a split has files, and those above them, by their real paths."""
        self._identities: NDArray[np.int64] | None = None
        """The identities of the files of splits, once they are asked for."""
        self._unused = Named()
        self._records = Named()
        """Files beside those of a data set of binary files that are called as these are."""
        self._folders: Counter[bytes] = Counter()
        self._by_content = Beginnings(self._root)
        self._looked_at = 0
        self._until = 0.0
        self._cut = False
        """Whether there is more than was looked at."""

    def use(self, split: str) -> None:
        """What this split has is used.

        Raises:
            DataError, OSError: its list cannot be read.
            ValueError: a path in it is none.
        """
        source = self._source
        if isinstance(source, ImageFolderSource | ImagesSource):
            folder = os.path.realpath(source.root / source.splits[split])
            self._splits[os.fsencode(folder)] = split in self._opened
            return
        images = self._opened.get(split)
        for path in files_of(source, split, None if images is None else whole_of(images), self._tick):
            if b"/." in path or b"//" in path:
                path = os.path.normpath(path)
            folder_, _, name = path.rpartition(b"/")
            if folder_ not in self._real:
                self._real[folder_] = real = os.path.realpath(folder_)
                while real not in self._ways:
                    self._ways.add(real)
                    real = os.path.dirname(real)
            self._hashes.append(hash(self._real[folder_] + b"/" + name))

    def look(self) -> None:
        """Walk, as far as `MOST` and `MOST_SECONDS` allow."""
        self._until = time.monotonic() + MOST_SECONDS
        used = np.unique(np.array(self._hashes, dtype=np.int64))
        waiting = [*(os.path.normpath(os.fsencode(folder)) for folder in folders_of(self._source)), b""]
        seen: set[bytes] = set()
        while waiting and not self._at_its_end():
            below = waiting.pop()
            real = os.path.realpath(os.path.join(self._root, below))
            if real in seen:
                continue
            seen.add(real)
            try:
                self._look_into(below, real, waiting, used)
            except OSError:
                self._passed.closed.add(below)

    def _at_its_end(self) -> bool:
        """Whether no more may be looked at; asked where there is more."""
        self._cut = self._cut or self._looked_at >= MOST or time.monotonic() >= self._until
        return self._cut

    def _look_into(self, below: bytes, real: bytes, waiting: list[bytes], used: NDArray[np.int64]) -> None:
        told = self._told_of(below, real)
        if told:
            return
        found = []
        for name, entry in entries(self._root, below, self._passed, self._tick, hidden=True):
            if self._at_its_end():
                break
            self._tick()
            self._looked_at += 1
            if entry.is_dir(follow_symlinks=False):
                if told is None:
                    waiting.append(name)
            elif is_folder(entry):
                self._link(name, waiting)
            elif entry_ending(entry) in OTHER_IMAGES:
                self._passed.file(entry_ending(entry))
            elif entry_ending(entry) not in _NOTES or entry.name.startswith(b"."):
                found.append(entry.name)
        hashes = np.array([hash(real + b"/" + name) for name in found], dtype=np.int64)
        # Not np.isin, which sorts all of `used` for every folder.
        places = np.searchsorted(used, hashes)
        named = (
            (used[np.minimum(places, len(used) - 1)] == hashes) if len(used) else np.zeros(len(found), dtype=np.bool_)
        )
        unknown = []
        for place in np.flatnonzero(~named).tolist():
            path = os.path.join(below, found[place])
            if is_leftover(found[place]):
                if not self._is_linked(path):
                    self._passed.leftovers.add(path)
            elif self._is_of_other_records(path):
                self._records.add(path)
            elif ending_of(path) not in ENDINGS:
                unknown.append(path)
            elif not self._is_linked(path):
                self._unused.add(path)
                self._folders[below] += 1
        self._by_content.look(unknown, self._is_linked, self._tick)

    def _is_linked(self, path: bytes) -> bool:
        """Whether a split has the file by another name, through a link to it or as a hard link."""
        if self._identities is None:
            self._identities = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *self._of_splits()]))
        with suppress(OSError):
            number = identity(os.stat(os.path.join(self._root, path)))
            place = int(np.searchsorted(self._identities, number))
            return place < len(self._identities) and int(self._identities[place]) == number
        return False

    def _of_splits(self) -> Iterator[NDArray[np.int64]]:
        """Identities of the files of each split: of those that are open as these know them, of others looked up."""
        source = self._source
        yield from (each.identities for each in map(whole_of, self._opened.values()) if isinstance(each, FileImages))
        for split in set(splits_of(source) or []) - self._opened.keys():
            found = array("q")
            with suppress(DataError, OSError, ValueError):  # told where the splits were looked through
                if isinstance(source, ImageFolderSource | ImagesSource):
                    folder = os.fsencode(source.root / source.splits[split])
                    below = images_below(folder, self._tick, PassedOver(), links_at_top=True)
                    # Images in a folder of class folders itself are not its own.
                    loose = isinstance(source, ImagesSource)
                    found.extend(number for path, _, number in below if loose or b"/" in path)
                else:
                    for path in files_of(source, split, None, self._tick):
                        with suppress(OSError):
                            found.append(identity(os.stat(path)))
            yield np.array(found, dtype=np.int64)

    def words(self) -> list[str]:
        """What was found."""
        told = []
        if self._unused.count:
            most = sorted(self._folders.items(), key=lambda one: (-one[1], one[0]))
            where = [f"{count:,} in {said(folder) or 'the root itself'}" for folder, count in most[:NAMED]]
            more = f", and more in {len(most) - NAMED:,} other folders" if len(most) > NAMED else ""
            least = "at least " if self._cut else ""
            told.append(
                f"images of no split, not used: {least}{self._unused.count:,} {self._unused.names()}, "
                f"{', '.join(where)}{more}"
            )
        elif self._cut:
            told.append(f"images of no split: none among {self._looked_at:,} files and folders, and there are more")
        told += self._by_content.words(cut=self._cut)
        if self._records.count:
            told.append(
                f"files of no split, not used: {self._records.count:,} {self._records.names()}; a split of "
                f"{self._source.format} is of the files that are published with it alone: put records into these"
            )
        return told + self._passed.words(str(self._source.root))

    def _told_of(self, below: bytes, real: bytes) -> bool | None:
        """Whether the folder is a split that tells of all in it (True), or of what lies in its folders (False)."""
        source = self._source
        if real in self._splits:
            return self._splits[real] or isinstance(source, ImagesSource)
        # Each folder of the root is a split where `splits` is left out.
        if not (isinstance(source, ImageFolderSource) and not source.splits and below and b"/" not in below):
            return None
        name = os.fsdecode(below)
        if name in self._opened:
            return True
        return False if re.fullmatch(NAME_PATTERN, name) and is_split(os.path.join(self._root, below)) else None

    def _is_of_other_records(self, path: bytes) -> bool:
        """Whether it is called as files of binary data sets are, in the root of one."""
        names = record_files(self._source)
        return bool(names) and path.endswith(b".bin") and b"/" not in path and os.fsdecode(path) not in names

    def _link(self, name: bytes, waiting: list[bytes]) -> None:
        real = os.path.realpath(os.path.join(self._root, name))
        if real in self._ways or real in self._splits or self._told_of(name, real) is not None:
            waiting.append(name)
        else:
            self._passed.links.add(name)
