"""Temporary folders of one process, which do not stay where that is killed: the next such process removes them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOCK = "lock"
"""In each of them: held by the process that made it, as long as that is there."""


def make(prefix: str) -> Path:
    """A new folder of mode 700 for this process, whose name begins with `prefix`; it removes the folder when it ends.

    Those of the same name of processes of this account that ended without are removed first.

    Raises:
        OSError: it cannot be made.
    """
    for left in _left_behind(prefix):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    with contextlib.suppress(OSError):  # where nothing can be locked it is left alone for ever
        unlocked = folder / f".{LOCK}"
        descriptor = os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o600)  # never closed: the lock goes with the process
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unlocked.rename(folder / LOCK)  # locked by the time that others see it
    return folder


def _left_behind(prefix: str) -> Iterator[Path]:
    """Folders of this account whose lock nobody holds. One that has no lock may be about to get it."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as found:
        for entry in found:
            if not entry.name.startswith(prefix):
                continue
            with contextlib.suppress(OSError):
                ours = entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
                if ours and not _is_held(Path(entry.path) / LOCK):
                    yield Path(entry.path)


def _is_held(lock: Path) -> bool:
    """Whether the process that has made it is there.

    Raises:
        OSError: there is no lock.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
