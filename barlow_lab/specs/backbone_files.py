"""Which backbones stand below a host's folder, by the names that `backbone_from.file` gives them; no torch."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel

from barlow_lab.run_folder import BACKBONE_CONFIG, CHECKPOINT_MANIFEST
from barlow_lab.specs.catalogue import torchvision_files

MOST = 5000
"""Files and folders that are looked at: a host's list goes to the run database."""


class BackboneFiles(BaseModel):
    """What a host has below its BARLOW_BACKBONES_DIR: files, and folders that hold a backbone of ours."""

    names: list[str] = []
    """Paths below the folder, sorted."""
    complete: bool = True
    """False: there is more, or not all of it could be looked at."""
    folder: bool = True
    """False: the host has no such folder."""


def weights_file(file: str | None, torchvision: str | None) -> str | None:
    """The file that a `backbone_from` of these needs below that folder; None: none, or its name is not known here."""
    return file if torchvision is None else torchvision_files().get(torchvision)


def backbones_below(root: Path) -> BackboneFiles:
    """Files at any depth, without hidden ones, and folders with a config.json or manifest.json. A link counts where it
    leads to something below `root`, as it does when a job opens it.

    Raises:
        OSError: `root` is no folder, or cannot be read.
    """
    names: list[str] = []
    complete = True
    top = os.path.realpath(root)
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (top,))]
    """Folders, each with the real paths of those it lies in."""
    looked_at = 0
    while waiting:
        below, around = waiting.pop()
        try:
            with os.scandir(os.path.join(root, below)) as there:
                entries = [entry for entry in there if not entry.name.startswith(".")]
        except OSError:
            if not below:
                raise
            complete = False
            continue
        if below and {BACKBONE_CONFIG, CHECKPOINT_MANIFEST} & {entry.name for entry in entries}:
            names.append(below)
        for entry in entries:
            looked_at += 1
            name = os.path.join(below, entry.name)
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(around[-1], entry.name)
            if os.path.commonpath([real, top]) != top:
                continue
            if os.path.isdir(real):
                if real not in around:
                    waiting.append((name, (*around, real)))
            elif os.path.isfile(real):
                names.append(name)
        if looked_at > MOST:
            complete = False
            break
    return BackboneFiles(names=sorted(names[:MOST]), complete=complete)
