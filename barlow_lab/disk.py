"""Writing to a disk that may be full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = ("No space left on device", "Disk quota exceeded", "File too large")
"""What writing says when the disk, its quota or a limit on the size of files is exhausted."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of writing `path` name it: the operating system tells of an open file only what is wrong."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
