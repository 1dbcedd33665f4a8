"""Ranks that have not met yet: nobody waits for one that is gone.

Until the process group exists no broken connection tells of a dead peer, and whoever waits at the rendezvous waits for
minutes. So each rank holds a lock on a file of its own beside the rendezvous file from its first moment on; however the
process ends, the kernel lets go of it, and a peer that waits can take it. Nothing here loads torch.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from barlow_lab.environment import RENDEZVOUS_FILE

LOOK_SECONDS = 0.5


def arrive() -> None:
    """Say that this rank is on its way; nothing happens where there is no rendezvous file (alone, with torchrun)."""
    rendezvous = os.environ.get(RENDEZVOUS_FILE)
    if rendezvous is None:
        return
    place = _place(rendezvous, int(os.environ.get("RANK", "0")))
    unlocked = place.with_name(f".{place.name}.{os.getpid()}")
    descriptor = os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o644)  # never closed: the lock goes with the process
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unlocked.rename(place)  # locked by the time that others see it


@contextmanager
def watched(lost: Callable[[int], None]) -> Iterator[None]:
    """While the body runs, call `lost` with the rank of a peer that arrived and is gone, from a thread, once."""
    rendezvous = os.environ.get(RENDEZVOUS_FILE)
    met = threading.Event()

    def look() -> None:
        assert rendezvous is not None
        while not met.wait(LOOK_SECONDS):
            ranks = range(int(os.environ.get("WORLD_SIZE", "1")))
            gone = [rank for rank in ranks if _is_gone(_place(rendezvous, rank))]
            if gone and not met.is_set():
                lost(gone[0])
                return

    if rendezvous is not None:
        threading.Thread(target=look, daemon=True, name="rendezvous").start()
    try:
        yield
    finally:
        met.set()


def _place(rendezvous: str, rank: int) -> Path:
    return Path(f"{rendezvous}.rank-{rank}")


def _is_gone(place: Path) -> bool:
    """Whether nobody holds the lock; a rank that has not arrived yet is not gone, and this one holds its own."""
    try:
        descriptor = os.open(place, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
