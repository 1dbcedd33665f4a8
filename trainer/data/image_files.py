"""Images that are files: their names held by the million, one of them read."""

from __future__ import annotations

import errno
import hashlib
import os
from abc import ABC, abstractmethod
from array import array

import numpy as np
from numpy.typing import NDArray

from barlow_lab.foreign_text import shown
from barlow_lab.given_files import RefusedFile, open_regular
from trainer.data.decoding.decoder import decode
from trainer.data.decoding.reading import Losses, Reading
from trainer.data.errors import UnreadableImage

MAX_FILE_BYTES = 2**30
BACKSLASHES = "write / between folders in place of \\, as Windows has it"
NO_UTF_8 = "it is no text in UTF-8; save it as that"

_OF_ONE_FILE = {
    errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG,
}  # fmt: skip
"""What is wrong with one file. Any other error is the disk's: taken for the file's, a disk that goes away for a moment
would change what a run is trained on, or judge a backbone by what is left."""


class PackedNames:
    """Names of files in one text, without separators: a million of them as objects would take 300 MB a rank."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("q")

    def append(self, name: bytes) -> None:
        self._text += name
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> bytes:
        start = self._ends[place - 1] if place else 0
        return bytes(self._text[start : self._ends[place]])


class FileImages(ABC):
    """What splits have in common whose images are files of their own."""

    fingerprint: str
    identities: NDArray[np.int64]
    """(n,) `identity` of each image's file."""
    file_sizes: NDArray[np.int64]
    """(n,) bytes of each image's file."""
    _folder: bytes
    _reading = Reading()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _path(self, index: int) -> bytes:
        """The path of an image below `_folder`."""

    @property
    def folder(self) -> bytes:
        """Below which they are."""
        return self._folder

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB.

        Raises:
            UnreadableImage: the file is not there, may not be read, or is no image.
            OSError: the disk does not give it, or is not there any more.
        """
        return read_image(self._folder, self._path(index), self._reading, index)

    def name(self, index: int) -> str:
        """What the image is called (`Images.name`)."""
        return printable(self._path(index))

    def below(self, index: int) -> bytes:
        """Path of the image's file below `folder`."""
        return self._path(index)

    def file(self, index: int) -> bytes:
        """Path of the image's file."""
        return os.path.join(self._folder, self._path(index))

    def read_as(self, reading: Reading) -> None:
        """Read the images so from now on; called once. What is not the default is another data set, of other pixels."""
        self._reading = reading
        if reading.value_range != "dtype":
            said = f"{self.fingerprint} value_range {reading.value_range} 2"
            self.fingerprint = hashlib.sha256(said.encode()).hexdigest()

    def look_anew(self) -> Reading:
        """What takes in the next images in place of what did so before; it warns nobody."""
        self._reading = self._reading.anew()
        return self._reading

    def _orientation(self, index: int) -> int:
        """Of Exif, by which the image is turned upright; it is read once more for that.

        Raises:
            UnreadableImage, OSError: as `image`.
        """
        path, losses = self._path(index), Losses()
        decode(_encoded(self._folder, path), said(path), self._reading.value_range, losses)
        return losses.orientation


def read_image(folder: bytes, path: bytes, reading: Reading, index: int) -> NDArray[np.uint8]:
    """The image of the file `path` below `folder`, (H, W, 3) uint8 RGB; `index` is its place in the split.

    Raises:
        UnreadableImage: the file is not there, may not be read, or is no image.
        OSError: the disk does not give it, or is not there any more.
    """
    encoded = _encoded(folder, path)
    if not reading.asks_for(index):
        return decode(encoded, said(path), reading.value_range)
    losses = Losses()
    levels = decode(encoded, said(path), reading.value_range, losses)
    reading.take(index, said(path), levels, losses)
    return levels


def _encoded(folder: bytes, path: bytes) -> bytes:
    try:
        with open_regular(os.path.join(folder, path)) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise UnreadableImage(said(path), f"the file is larger than {MAX_FILE_BYTES:,} bytes")
            return file.read(size)  # and no more: what a link into /proc leads to says 0, and may have no end
    except RefusedFile as error:
        raise UnreadableImage(said(path), error.strerror or str(error)) from error
    except OSError as error:
        if error.errno not in _OF_ONE_FILE or not os.path.isdir(folder):
            raise OSError(error.errno, error.strerror, os.path.join(printable(folder), printable(path))) from error
        raise UnreadableImage(said(path), error.strerror or str(error)) from error


def identity(status: os.stat_result) -> int:
    """What tells a file from others, whatever links lead to it: the same number is the same file.

    Size and time belong to it for disks of a network that give two files one number.
    """
    return hash((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


def printable(name: bytes) -> str:
    """A file's name as text by which it is known, in class names and lists; bytes that are no UTF-8 as \\xNN."""
    return name.decode("utf-8", "backslashreplace")


def said(name: bytes) -> str:
    """The same in a message: nothing in it ends the line or drives a terminal."""
    return shown(printable(name))
