"""The end of a rank: when its last word is said nothing else runs."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from trainer.runtime import caches


def end_process(status: int) -> NoReturn:
    """End this process with `status` now.

    Not sys.exit: after it the interpreter takes down every library that was loaded, for a second, beside threads that
    still run. A library that aborts there makes a failure of a run that is done, and one that waits for a peer never
    ends one that failed.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # buffered lines may not fit on a full disk
                stream.flush()
        caches.remove_made()
    finally:  # also when a second Ctrl-C comes meanwhile
        os._exit(status)
