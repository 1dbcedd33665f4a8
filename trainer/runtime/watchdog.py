"""No process outlives its reason to run: a lost lease, a failed peer; of a dead parent, see barlow_lab.kernel."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from barlow_lab import outcome
from barlow_lab.environment import ALIVE_FILE, ALIVE_SECONDS
from trainer.runtime import caches

PEER_SECONDS = 20.0
LAST_WORD_SECONDS = 1.0
EXIT_STATUS = 1


def watch_lease(attempt_folder: Path | None) -> None:
    """End this process when BARLOW_ALIVE_FILE is older than BARLOW_ALIVE_SECONDS.

    Its peers, whose collectives that breaks, keep quiet, unless the volume does not answer: the attempt ends without an
    outcome.json, as one that is lost and not as one that crashed.

    The file's time of change is set by the worker to the moment its lease counts from, by CLOCK_BOOTTIME: that goes on
    while the machine sleeps, no change of the wall clock can stretch it, and it does not matter how late this process
    began to look. A file that is gone or cannot be looked at was not renewed. Nothing happens if the variable is not
    set.
    """
    path = os.environ.get(ALIVE_FILE)
    if path is None:
        return
    limit = float(os.environ[ALIVE_SECONDS])
    renewed = _now()

    def check() -> None:
        nonlocal renewed
        with contextlib.suppress(OSError):
            renewed = os.stat(path).st_mtime
        if _now() - renewed > limit:
            end(f"the lease of this attempt was not renewed for {limit:g} s", silencing=attempt_folder)

    _every(min(1.0, limit / 4), check)


def watch_peers(attempt_folder: Path) -> None:
    """End this process if a peer failed and it is still here PEER_SECONDS later, say in a collective without end.

    A failure is in outcome.json; a good outcome is written when every rank is about to leave by itself.
    """

    def check() -> None:
        value = outcome.read(attempt_folder)
        if value is not None and value["outcome"] not in ("ok", "stopped"):
            time.sleep(PEER_SECONDS)
            end("another rank of this attempt failed")

    _every(1.0, check)


def _every(seconds: float, check: Callable[[], None]) -> None:
    def loop() -> None:
        while True:
            time.sleep(seconds)
            check()

    threading.Thread(target=loop, daemon=True, name="watchdog").start()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def end(why: str, *, silencing: Path | None = None) -> None:
    """End this process now: it may wait in a call that nothing else interrupts.

    `silencing`: the folder of an attempt whose other ranks shall not take their failure for its cause.
    """
    try:
        # Whatever becomes of it: the volume may hang, the disk of the log be full, and a frozen worker empties no pipe.
        acts: tuple[Callable[[], None], ...] = (lambda: _silence(silencing), lambda: _say(why), caches.remove_made)
        last = [threading.Thread(target=act, daemon=True) for act in acts]
        for thread in last:
            thread.start()
        for thread in last:
            thread.join(LAST_WORD_SECONDS)
    finally:
        os._exit(EXIT_STATUS)


def _silence(attempt_folder: Path | None) -> None:
    if attempt_folder is not None:
        with contextlib.suppress(OSError):
            outcome.claim(attempt_folder)


def _say(why: str) -> None:
    print(f"ending now: {why}", file=sys.stderr, flush=True)
