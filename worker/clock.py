"""The clock of leases: it goes on while the machine sleeps, and nobody can set it."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since some fixed moment."""
    return time.clock_gettime(_CLOCK)
