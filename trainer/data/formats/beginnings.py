"""Image files among those whose names have no image's ending: known by their first bytes, a sample of each kind.

To open a file takes longer than to list it, and beside a data set may lie a million that are no images.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

from barlow_lab.given_files import open_regular
from trainer.data.formats.image_tree import ending_of
from trainer.data.formats.passed_over import Named, counted, shown_ending

_BEGINNING = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|II\*\0|MM\0\*|RIFF....WEBP|BM....\0\0\0\0|P[1-6]\s", re.DOTALL)
"""How image files that are read begin."""

MOST_OPENED = 1000
"""Files into which a look is taken in all,"""
SAMPLE = 32
"""those of one kind in one folder, evenly spaced, that decide for all of these whether they may be images,"""
ENOUGH = 128
"""and those of one kind in any folder after which, none being an image, no more are looked into."""


class Beginnings:
    """Counts of what is below a root, a folder at a time. A kind is an ending, whatever numbers are in it, or none."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._images = Named()
        self._opened: Counter[str] = Counter()
        self._found: set[str] = set()
        """Kinds that hold images."""
        self._assumed: Counter[str] = Counter()
        """Files that were not looked into."""

    def look(self, paths: Sequence[bytes], is_used: Callable[[bytes], bool], tick: Callable[[], None]) -> None:
        """Look into files of one folder, `paths` below the root; those that `is_used` do not count. `tick` is called
        for each that is opened."""
        kinds: dict[str, list[bytes]] = defaultdict(list)
        for path in paths:
            kinds[shown_ending(ending_of(path))].append(path)
        for kind, files in kinds.items():
            files.sort()
            step = max(1, -(-len(files) // SAMPLE))
            sample, rest = files[::step], [path for place, path in enumerate(files) if place % step]
            if sum(self._is_image(path, kind, is_used, tick) for path in sample):  # each of the sample
                for path in rest:
                    self._is_image(path, kind, is_used, tick)
            else:
                self._assumed[kind] += len(rest)

    def _is_image(self, path: bytes, kind: str, is_used: Callable[[bytes], bool], tick: Callable[[], None]) -> bool:
        enough = kind not in self._found and self._opened[kind] >= ENOUGH
        if enough or self._opened.total() >= MOST_OPENED:
            self._assumed[kind] += 1
            return False
        tick()
        self._opened[kind] += 1
        with suppress(OSError), open_regular(os.path.join(self._root, path)) as file:
            if _BEGINNING.match(file.read(16)):
                if not is_used(path):
                    self._images.add(path)
                    self._found.add(kind)
                return True
        return False

    def words(self, *, cut: bool) -> list[str]:
        """What a user is told; `cut` says that there is more than was looked at."""
        told = []
        if self._images.count:
            least = "at least " if cut or self._found & self._assumed.keys() else ""
            told.append(
                "images by their first bytes whose names have no image's ending, of no split, not used: "
                f"{least}{self._images.count:,} {self._images.names()}; give them the endings of their formats"
            )
        if assumed := +self._assumed:
            told.append(
                f"files of no split whose names have no image's ending, not looked into: {counted(assumed)}, for "
                f"{self._opened.total():,} such files were; if they are images, give them the endings of their formats"
            )
        return told
