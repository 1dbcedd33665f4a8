"""Files that others made, opened in one place: regular files alone, no more of them than is asked for, and where a root
is given none outside of it.

A named pipe without a writer holds whoever opens it for ever, a device has no end, and a link may lead anywhere. What
is refused here is an OSError in words, as of a file that is not there.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from barlow_lab.foreign_text import shown

MAX_JSON_BYTES = 1 << 24
"""Of a JSON file that describes something: ours have some kilobytes."""
MAX_TEXT_BYTES = 1 << 28
"""Of a list of images or an annotation: one line for each of ImageNet has 50 MB."""

_ZIP_END, _ZIP64_LOCATOR, _ZIP64_END = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class RefusedFile(OSError):
    """A file that is there and is not read: it is no regular one, too large, or leads out of its root."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(errno.EINVAL, why, path)

    def __str__(self) -> str:
        return f"{shown(str(self.filename))}: {self.strerror}"


def open_regular(path: str | bytes | Path, *, within: Path | None = None, link: bool = True) -> BinaryIO:
    """Open a regular file to be read, buffered as `open` does; links are followed, `within` or anywhere.

    Raises:
        RefusedFile: it is a folder, a named pipe, a socket or a device, leads out of `within`, or is a
            link without `link`.
        OSError: it is not there, or may not be read.
    """
    descriptor = open_descriptor(path, within=within, link=link)
    try:
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def open_descriptor(path: str | bytes | Path, *, within: Path | None = None, link: bool = True) -> int:
    """The same as a number, for os.pread; the caller closes it."""
    if within is not None:
        path = inside(Path(os.fsdecode(path)), within)
    name = os.fsdecode(path)
    try:
        # O_NONBLOCK keeps a pipe from being waited for, before the check is reached.
        follow = 0 if link else os.O_NOFOLLOW
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | follow)
    except OSError as error:
        if error.errno == errno.ELOOP and not link:
            raise RefusedFile(name, "it is a link, and the file itself is expected") from error
        if error.errno == errno.ENXIO:  # of a socket
            raise RefusedFile(name, "it is a socket or a device, and a regular file is expected") from error
        raise
    try:
        _check(os.fstat(descriptor).st_mode, name)
        return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def checked(path: Path, *, within: Path | None = None, most: int | None = None) -> Path:
    """The same for a library that opens by name: the path to give it, links resolved.

    Raises:
        RefusedFile: it has more than `most` bytes.
        OSError: as `open_regular`.
    """
    found = _resolved(path) if within is None else inside(path, within)
    status = found.stat()
    _check(status.st_mode, str(path))
    if most is not None and status.st_size > most:
        raise RefusedFile(str(path), f"it is larger than {most:,} bytes")
    return found


def inside(path: Path, root: Path) -> Path:
    """`path` with its links resolved, which must lead to somewhere below `root`.

    Raises:
        RefusedFile: they do not.
        OSError: there is nothing.
    """
    found = _resolved(path)
    if not found.is_relative_to(root.resolve()):
        raise RefusedFile(str(path), f"it leads out of {shown(str(root))}; put the file itself there, not a link to it")
    return found


def read_bytes(path: str | bytes | Path, *, most: int, within: Path | None = None) -> bytes:
    """All of a regular file of at most `most` bytes.

    Raises:
        RefusedFile: it is larger.
        OSError: as `open_regular`.
    """
    with open_regular(path, within=within) as file:
        return read_at_most(file, most, path)


def read_at_most(file: BinaryIO, most: int, path: str | bytes | Path) -> bytes:
    """What is left of an open file, if that is at most `most` bytes.

    Raises:
        RefusedFile: it is more.
    """
    raw = file.read(most + 1)
    if len(raw) > most:
        raise RefusedFile(os.fsdecode(path), f"it is larger than {most:,} bytes")
    return raw


def read_text(path: Path, *, most: int = MAX_TEXT_BYTES, encoding: str = "utf-8", errors: str = "strict") -> str:
    """The same as text, whose line ends become line feeds.

    Raises:
        UnicodeDecodeError: it is not so encoded.
        OSError: as `read_bytes`.
    """
    text = read_bytes(path, most=most).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, *, most: int = MAX_JSON_BYTES, within: Path | None = None) -> Any:
    """The value of a JSON file in UTF-8.

    Raises:
        ValueError: it is no JSON, or is nested too deeply.
        OSError: as `read_bytes`.
    """
    return parse_json(read_bytes(path, most=most, within=within).decode("utf-8"))


def refuse_compressed(file: BinaryIO) -> None:
    """Have an archive of torch.save be as large in memory as it is on the disk.

    Raises:
        ValueError: a part of it is compressed, and could be of any size; or it has parts that lie over one another, or
            two lists of its parts, of which torch reads the other.
        zipfile.BadZipFile: it is no archive, or a damaged one.
    """
    with zipfile.ZipFile(file) as archive:
        entries, start = archive.infolist(), archive.start_dir
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is a compressed archive; unpack it")
    size = file.seek(0, os.SEEK_END)
    if sum(entry.file_size for entry in entries) > size or start != _directory_of(file, size):
        raise ValueError("it is no archive as torch.save writes them; save it again")


def _directory_of(file: BinaryIO, size: int) -> int | None:
    """Where an archive without a comment says that the list of its parts begins (APPNOTE 4.3.14 to 4.3.16)."""
    file.seek(max(0, size - _ZIP64_END.size - _ZIP64_LOCATOR.size - _ZIP_END.size))
    tail = file.read()
    if len(tail) < _ZIP_END.size or not tail[-_ZIP_END.size :].startswith(b"PK\5\6"):
        return None
    locator = tail[-_ZIP_END.size - _ZIP64_LOCATOR.size : -_ZIP_END.size]
    if not locator.startswith(b"PK\6\7"):
        return int(_ZIP_END.unpack(tail[-_ZIP_END.size :])[6])
    place = _ZIP64_LOCATOR.unpack(locator)[2]
    if place != size - _ZIP64_END.size - _ZIP64_LOCATOR.size - _ZIP_END.size or not tail.startswith(b"PK\6\6"):
        return None
    return int(_ZIP64_END.unpack(tail[: _ZIP64_END.size])[9])


def parse_json(raw: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or is nested too deeply to be read.
    """
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _resolved(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except RuntimeError as error:  # what Python 3.11 and 3.12 say of links in a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error


def _check(mode: int, name: str) -> None:
    if not stat.S_ISREG(mode):
        what = next((said for is_kind, said in _KINDS if is_kind(mode)), "no regular file")
        raise RefusedFile(name, f"it is {what}, and a regular file is expected")
