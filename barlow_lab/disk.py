"""Writing to a disk that may be full, so that a reader sees the old file or the whole new one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from barlow_lab.given_files import open_regular

FULL = ("No space left on device", "Disk quota exceeded", "File too large")
"""What writing says when the disk, its quota or a limit on the size of files is exhausted."""
PIECE_BYTES = 1 << 24


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of writing `path` name it: the operating system tells of an open file only what is wrong."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path), temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_atomic` writes.

    Raises:
        ValueError: `value` holds a non-finite number; JSON has no word for it.
    """
    write_atomic(path, json.dumps(value, allow_nan=False, indent=1))


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path, tick: Callable[[], None] = lambda: None, root: Path | None = None) -> str:
    """SHA-256 (hex) of a regular file; `tick` is called for every piece of it. With `root` it lies below that, links
    followed."""
    digest = hashlib.sha256()
    with open_regular(path, within=root) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            tick()
    return digest.hexdigest()
