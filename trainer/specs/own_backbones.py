"""Backbones of one's own: registered by an installed distribution, known here by name without importing it.

A distribution registers one with an entry point of the group `barlow_lab.backbones`:

    [project.entry-points."barlow_lab.backbones"]
    wide_tiny = "my_package.networks:WideTiny"

`trainer.models.own` says what the object behind the name has to be. Where specs are checked (the API, the workers) the
distribution has to be installed as well: its metadata is read, its code is not.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

GROUP = "barlow_lab.backbones"


def own_backbones() -> dict[str, EntryPoint]:
    """Entry points by name; of two of one name the first on the path, as with imports."""
    return {entry.name: entry for entry in reversed(tuple(entry_points(group=GROUP)))}
