"""Files that lists and annotations name, below the folder of the images: each by one spelling of its path."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from array import array
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data.errors import DataError
from trainer.data.image_files import BACKSLASHES, PackedNames, identity, printable, said

_ADDRESS = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://")
_ENDINGS = tuple(
    each for ending in (b".jpg", b".jpeg", b".png", b".bmp", b".tif", b".tiff", b".webp")
    for each in (ending, ending.upper())
)  # fmt: skip
_OF_WINDOWS = re.compile(rb"[A-Za-z]:[\\/]|\\\\")


class NamedFiles(NamedTuple):
    """Files in the order in which they are named."""

    names: PackedNames
    """Paths below the folder, without `.` and `..`."""
    digest: bytes
    """SHA-256 of names and sizes."""
    identities: NDArray[np.int64]
    """(n,) `identity` of each,"""
    sizes: NDArray[np.int64]
    """and its bytes."""


def named_files(whose: str, folder: bytes, names: PackedNames, tick: Callable[[], None]) -> NamedFiles:
    """The files that `names` are, paths below `folder` or absolute ones that lead there; `tick` is called for each.

    Raises:
        DataError: some are not there, or not below `folder`; says how many of which `whose` names, and the first.
    """
    digest, below = hashlib.sha256(), _Below(folder, whose)
    kept, identities, sizes = PackedNames(), array("q"), array("q")
    missing: list[bytes] = []
    for place in range(len(names)):
        name = below.path(names[place])
        tick()
        try:
            status = os.stat(os.path.join(folder, name))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(name)
            continue
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            why = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"{whose}: {printable(name)!r} cannot be looked at: {why}") from error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{whose} names {said(name)}, which is no file in {said(folder)}")
        digest.update(b"%b\0%d\0" % (name, status.st_size))
        kept.append(name)
        identities.append(identity(status))
        sizes.append(status.st_size)
    if missing:
        raise DataError(
            f"{len(missing):,} of the {len(names):,} images that {whose} names are not in {said(folder)}, first "
            f"{said(missing[0])}: {_remedy(folder, missing[0])}"
        )
    return NamedFiles(kept, digest.digest(), np.array(identities, dtype=np.int64), np.array(sizes, dtype=np.int64))


def _remedy(folder: bytes, missing: bytes) -> str:
    stem, ending = os.path.splitext(missing)
    for other in _ENDINGS:
        if other != ending and os.path.isfile(os.path.join(folder, stem + other)):
            return (
                f"{said(stem + other)} is there; correct the name, or, as lists of VOC have no endings and mean .jpg, "
                f"rename such files to {printable(ending)} (what a file is its content says)"
            )
    if _OF_WINDOWS.match(missing):
        return "it is a path of Windows; write the one below that folder, with / between folders"
    return BACKSLASHES if b"\\" in missing else "complete the data set, or correct its folders in datasets.yaml"


class _Below:
    """Paths below a folder, however they are written."""

    def __init__(self, folder: bytes, whose: str) -> None:
        self._folder = folder
        self._whose = whose
        self._real: dict[bytes, bytes] = {}
        self._inside: dict[bytes, bytes | None] = {}

    def path(self, name: bytes) -> bytes:
        """The path of the file that is named so, without `.`, `..` and folders around this one.

        Raises:
            DataError: it leads out of the folder, or is an address of the web or of files.
        """
        if not name.startswith((b"/", b".")) and b"/." not in name and b"//" not in name:
            return name
        if _ADDRESS.match(name):
            raise DataError(
                f"{self._whose} names {said(name)}, an address; write the path of the file below {said(self._folder)}"
            )
        if not name.startswith(b"/") and b".." not in name.split(b"/"):
            return os.path.normpath(name)
        directory, _, file = name.rpartition(b"/")
        if directory not in self._inside:
            self._inside[directory] = self._below(os.path.join(self._folder, directory + b"/"))
        inside = self._inside[directory]
        if inside is None and (begun := self._without_slash(name)) is not None:
            return begun
        if inside is None:
            raise DataError(
                f"{self._whose} names {said(name)}, which is outside the folder of the images, {said(self._folder)}; "
                "put it there, or name a folder in datasets.yaml that holds all of them"
            )
        return os.path.join(inside, file)

    def _without_slash(self, name: bytes) -> bytes | None:
        """What a name that begins with / means in lists such as those of Places365: a path below this folder, if the
        file is there, and none is at the absolute path."""
        below = os.path.normpath(name.lstrip(b"/"))
        if not name.startswith(b"/") or b".." in name.split(b"/") or b"\0" in name or os.path.exists(name):
            return None
        return below if os.path.isfile(os.path.join(self._folder, below)) else None

    def _below(self, directory: bytes) -> bytes | None:
        """Where a folder is below this one, by its own links where it goes through them, else by where these lead."""
        root, real = self._realpath(self._folder), self._realpath(directory)
        parts = [part for part in directory.split(b"/") if part not in (b"", b".")]
        for count in range(len(parts) + 1) if b".." not in parts else ():
            if self._realpath(b"/" + b"/".join(parts[:count])) == root:
                return b"/".join(parts[count:])
        if real == root or real.startswith(os.path.join(root, b"")):
            return real[len(root) :].lstrip(b"/")
        return None

    def _realpath(self, path: bytes) -> bytes:
        if path not in self._real:
            self._real[path] = os.path.realpath(path)
        return self._real[path]
