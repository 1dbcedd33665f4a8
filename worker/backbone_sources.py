"""Backbones that stand on this host, below BARLOW_BACKBONES_DIR: by name, and never from outside it."""

from __future__ import annotations

import difflib
from itertools import islice
from pathlib import Path

from barlow_lab.foreign_text import shown
from barlow_lab.given_files import RefusedFile, inside
from barlow_lab.specs import BackboneFrom
from barlow_lab.specs.backbone_inputs import backbone_input

NAMES_READ = 10_000
"""Of a folder, when one that was not found is looked for among its neighbours."""


def backbone_on_host(source: BackboneFrom, root: Path | None) -> dict[str, str] | None:
    """What inputs.json says of the backbone that `source` names; None for a source that needs no file.

    Raises:
        ValueError: it is not there, lies outside `root`, or is no backbone; with the remedy.
    """
    name = source.file
    wanted = name or source.torchvision
    if wanted is None:
        return None
    if root is None or not root.is_dir():
        said = "is not set" if root is None else "is no folder"
        raise ValueError(
            f"the backbone {wanted} is looked for below BARLOW_BACKBONES_DIR, which {said} on this host; "
            "point it to the folder that has the file, and start the worker again"
        )
    root = root.resolve()
    if name is None:
        return {"folder": str(root)}
    try:
        path = inside(root / name, root)
    except RefusedFile as error:
        raise ValueError(
            f"{shown(name)} leads out of BARLOW_BACKBONES_DIR; put the file itself there, not a link to it"
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"{shown(name)} is not below BARLOW_BACKBONES_DIR of this host; {_near(root, name)}"
        ) from error
    except OSError as error:
        raise ValueError(f"{shown(name)} cannot be opened below BARLOW_BACKBONES_DIR: {error.strerror}") from error
    return backbone_input(path, root)


def _near(root: Path, name: str) -> str:
    """What there is of a name like this, in the deepest folder of it that exists."""
    folder = (root / name).parent
    while not folder.is_dir():
        folder = folder.parent
    below = [str(entry.relative_to(root)) for entry in islice(folder.iterdir(), NAMES_READ) if entry.name[0] != "."]
    near = difflib.get_close_matches(name, below, n=3) or sorted(below)[:3]
    return f"did you mean {shown(' or '.join(near))}?" if near else "put it there: it has none yet"
