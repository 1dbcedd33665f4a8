"""Lines of a list that name images of another split than the one that labels are taken from.

A list that was made from the root of a data set has lines of all of its splits. Read without its folder, `test/a/0.png`
would be the training image `a/0.png`.
"""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Sequence
from contextlib import suppress

from barlow_lab.foreign_text import shown
from barlow_lab.specs.data_sets import DataSource, ImageFolderSource
from trainer.data.datasets import Images
from trainer.data.formats.images_of_tests import is_called_as_test
from trainer.data.formats.opening import splits_of
from trainer.data.formats.unused import is_split
from trainer.data.image_files import FileImages
from trainer.evaluation.list_lines import Meant


class OtherSplits:
    """What of a data set is not of its split `split`, whose images are `images`."""

    def __init__(self, images: Images, split: str, source: DataSource | None) -> None:
        """`source` is the data set's entry in datasets.yaml."""
        self._images = images
        self._split = split
        self._root = None if source is None else source.root
        self._here = _ways(split, source)
        self._others = {other: _ways(other, source) for other in _splits(source) if other != split}
        self._called_as_test = any(way and is_called_as_test(os.fsencode(way[-1])) for way in self._here)

    def holds(self, meant: Meant, name: str) -> str | None:
        """What to say of a line that names the image `name` of this split by the end of its path, and by all of it an
        image that is not of this split; None: it names this one."""
        remedy = f"labels are taken from split {self._split!r}: list images of that"
        if meant.before:
            here = max(_in_common(meant.before, way) for way in self._here)
            for other, ways in self._others.items():
                if max(_in_common(meant.before, way) for way in ways) > here:
                    return f"of split {other!r}, and {remedy}"
            if not here and not self._called_as_test and is_called_as_test(os.fsencode(meant.before[-1])):
                return f"by its folder {shown(meant.before[-1])!r} of a test, and {remedy}"
        if "/".join(meant.path) != name and self._is_another_file(meant):
            return f"the path of a file that split {self._split!r} does not have, and {remedy}"
        return None

    def _is_another_file(self, meant: Meant) -> bool:
        """Whether the line is the path of a file of the data set that is not the image which is meant."""
        if self._root is None or not isinstance(self._images, FileImages):
            return False
        path = "/".join(meant.path)
        places = {os.path.join(folder, path) for folder in (self._root, os.fsdecode(self._images.folder))}
        if f"/{path}".startswith((f"{self._root}/", f"{os.path.realpath(self._root)}/")):
            places.add(f"/{path}")
        for place in places:
            with suppress(OSError, ValueError):  # it is not there, or no path
                if not os.path.samefile(place, os.fsdecode(self._images.file(meant.place))):
                    return True
        return False


def _splits(source: DataSource | None) -> list[str]:
    known = [] if source is None else splits_of(source)
    if known is not None or source is None:
        return known or []
    found = []
    with suppress(OSError):
        found = [entry.name for entry in os.scandir(source.root) if entry.is_dir()]
    return [name for name in found if is_split(os.fsencode(source.root / name))]


def _ways(split: str, source: DataSource | None) -> list[tuple[str, ...]]:
    """Paths whose end a line may have before an image of the split: its name, and in a tree its folder."""
    ways = [split]
    if isinstance(source, ImageFolderSource):
        folder = source.root / source.splits.get(split, split)
        ways += [os.path.normpath(folder), os.path.realpath(folder)]
    return [tuple(part for part in _form(way).split("/") if part) for way in ways]


def _in_common(before: Sequence[str], way: Sequence[str]) -> int:
    """How many folders at their ends are the same."""
    pairs = zip(reversed(before), reversed(way), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: _form(pair[0]) == pair[1], pairs))


def _form(text: str) -> str:
    """As it is compared: many a disk takes no notice of case."""
    return unicodedata.normalize("NFC", text).casefold()
