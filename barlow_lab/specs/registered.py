"""What installed distributions register under a name of their own, known from their metadata without importing them.

    [project.entry-points."barlow_lab.backbones"]
    wide_tiny = "my_package.networks:WideTiny"

    [project.entry-points."barlow_lab.objectives"]
    uniformity = "my_package.uniformity:UniformitySpec"

`trainer.models.own` says what the object behind the name of a backbone has to be, `barlow_lab.specs.objectives.own`
what that of an objective. Where specs are checked (the API, the workers) the distribution has to be installed as well:
of a backbone only the name is asked there, of an objective its class is imported, since its parameters are judged.
"""

from __future__ import annotations

import functools
import sys
import time
from importlib.metadata import EntryPoint, entry_points

BACKBONES = "barlow_lab.backbones"
OBJECTIVES = "barlow_lab.objectives"

FRESH_SECONDS = 2.0
"""What is installed is read again after so long: the metadata of every distribution takes tens of milliseconds, and a
body may hold hundreds of unknown names."""


def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; of two of one name the first on the path, as with imports."""
    return _read(group, tuple(sys.path), int(time.monotonic() / FRESH_SECONDS))


@functools.lru_cache(maxsize=2)
def _read(group: str, path: tuple[str, ...], now: int) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in reversed(tuple(entry_points(group=group)))}
