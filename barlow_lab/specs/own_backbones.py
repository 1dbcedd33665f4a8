"""Backbones of one's own: registered by an installed distribution, known here by name without importing it.

A distribution registers one with an entry point of the group `barlow_lab.backbones`:

    [project.entry-points."barlow_lab.backbones"]
    wide_tiny = "my_package.networks:WideTiny"

`trainer.models.own` says what the object behind the name has to be. Where specs are checked (the API, the workers) the
distribution has to be installed as well: its metadata is read, its code is not.
"""

from __future__ import annotations

import functools
import sys
import time
from importlib.metadata import EntryPoint, entry_points

GROUP = "barlow_lab.backbones"
FRESH_SECONDS = 2.0
"""What is installed is read again after so long: the metadata of every distribution takes tens of milliseconds, and a
body may hold hundreds of unknown names."""


def own_backbones() -> dict[str, EntryPoint]:
    """Entry points by name; of two of one name the first on the path, as with imports."""
    return _read(tuple(sys.path), int(time.monotonic() / FRESH_SECONDS))


@functools.lru_cache(maxsize=1)
def _read(path: tuple[str, ...], now: int) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in reversed(tuple(entry_points(group=GROUP)))}
