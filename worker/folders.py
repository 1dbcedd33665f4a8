"""What the worker writes into a run directory and reads from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from barlow_lab.given_files import open_regular

PIECE_BYTES = 1 << 24


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def sha256_of(path: Path, tick: Callable[[], None] = lambda: None) -> str:
    """SHA-256 (hex) of a regular file; `tick` is called for every piece of it."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            tick()
    return digest.hexdigest()
