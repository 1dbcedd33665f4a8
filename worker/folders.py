"""What the worker writes into a run directory and reads from it (DESIGN 4)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def read_outcome(attempt: Path, token: UUID) -> dict[str, Any] | None:
    """outcome.json, if the attempt with this token wrote it; None: there is none, or it is another attempt's."""
    try:
        outcome: dict[str, Any] = json.loads((attempt / "outcome.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    return outcome if outcome.get("token") == str(token) else None


def publish_backbone(run: Path, exported: Path) -> None:
    """Move an attempt's exported backbone to `<run>/backbone` by one rename; doing it again changes nothing.

    A backbone that an earlier attempt published, without living to see its end recorded, makes way.
    """
    published = run / "backbone"
    if not exported.exists():
        assert published.exists(), f"{exported} was neither exported nor published"
        return
    if published.exists():
        replaced = exported.with_name("backbone-replaced")
        published.rename(replaced)
        shutil.rmtree(replaced)
    exported.rename(published)
    _sync(run)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
