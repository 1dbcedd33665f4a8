"""Data sets by name: the only way a spec reaches data (DESIGN 6.9).

A name is either registered here, and its images come with the code, or it is one for which this host has a folder:
a tree of image files (trainer.data.image_folder).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.data.datasets import FirstImages, ImageDataSet
from trainer.data.digits import open_digits
from trainer.data.errors import DataError
from trainer.data.image_folder import open_image_folder
from trainer.data.textures import open_textures

Tick = Callable[[], None]
"""Called for every unit of work, say an image: a hundred thousand times a second costs nothing that counts."""

Warn = Callable[[str], None]
"""Called with what a user should know of a data set that can be used nevertheless."""

Opener = Callable[[str, Tick], ImageDataSet]
"""Opens one split, given its name."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One data set that needs no folder."""

    opener: Opener
    splits: tuple[str, ...]
    description: str


_registered: dict[str, Registration] = {}


def register(name: str, opener: Opener, *, splits: tuple[str, ...], description: str) -> None:
    """Make a data set known under a name.

    Raises:
        ValueError: the name is taken.
    """
    if name in _registered:
        raise ValueError(f"data set {name!r} is registered twice; give one of them another name")
    _registered[name] = Registration(opener, splits, description)


def registered() -> dict[str, Registration]:
    """All registered data sets, by name."""
    return dict(_registered)


def open_data_set(
    name: str,
    split: str,
    *,
    root: Path | None = None,
    limit: int | None = None,
    tick: Tick = lambda: None,
    warn: Warn = lambda message: None,
) -> ImageDataSet:
    """Open one split of a data set; `limit` keeps its first images only, `tick` hears of every unit of work.

    `root` is this host's folder of a data set that is not registered.

    Raises:
        DataError: unknown name or split, naming the known ones, or data that cannot be read.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit {limit} leaves no image; use at least 1, or leave it out")
    entry = _registered.get(name)
    whole: ImageDataSet
    if entry is not None:
        if split not in entry.splits:
            raise DataError(f"data set {name!r} has no split {split!r}; {_nearest(split, entry.splits)}")
        whole = entry.opener(split, tick)
    elif root is not None:
        whole = open_image_folder(name, root, split, tick=tick, warn=warn)
    else:
        raise DataError(
            f"unknown data set {name!r}; {_nearest(name, tuple(_registered))} "
            f"(a tree of images by hand: --data {name}=DIR)"
        )
    return whole if limit is None or limit >= len(whole) else FirstImages(whole, limit)


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


register(
    "digits",
    lambda split, tick: open_digits(split),
    splits=("train", "test"),
    description="1,797 handwritten digits of scikit-learn, 8x8 grey levels as RGB",
)
register(
    "textures",
    lambda split, tick: open_textures(split, tick=tick),
    splits=("train", "test"),
    description="Generated textures: the class is the family; colours, phase, frequency, shading, noise are nuisance",
)
