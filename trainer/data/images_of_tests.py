"""Images of a split that are, by datasets.yaml or by the name of their folder, those of a test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable

from trainer.data.image_files import said
from trainer.specs.data_sets import ImageFolderSource, ImagesSource

_OF_A_TEST = (b"test", b"val", b"valid", b"validation", b"eval")
"""What people call folders that nothing is to be learned from."""


class ImagesOfTests:
    """Those of one split, which is a folder of the root as the others are."""

    def __init__(self, source: ImageFolderSource | ImagesSource, split: str) -> None:
        self._split = split
        here = source.root / source.splits.get(split, split)
        self._splits = {
            os.fsencode(os.path.relpath(source.root / folder, here)): f"split {other!r}"
            for other, folder in source.splits.items()
            if other != split
        }

    def may_be_in(self, top: bytes) -> bool:
        """Whether images of this folder, one right below the split's own, may be such: a million paths need no look."""
        return top.lower() in _OF_A_TEST or any(
            folder in (b".", top) or folder.startswith(top + b"/") for folder in self._splits
        )

    def warn(self, name: str, paths: Iterable[bytes], warn: Callable[[str], None]) -> None:
        """Count those among `paths`, below the folder of the split of the data set `name`, and warn of them."""
        held: Counter[tuple[str, str]] = Counter()
        for path in paths:
            for folder, what in self._splits.items():
                if folder == b"." or path.startswith(folder + b"/"):
                    held[said(folder), what] += 1
            top, below, _ = path.partition(b"/")
            if below and top not in self._splits and top.lower() in _OF_A_TEST:
                held[said(top), "by its name images of a test"] += 1
        for (where, what), count in sorted(held.items()):
            warn(
                f"data set {name!r}, split {self._split!r} holds {count:,} images of its folder {where!r}, which is "
                f"{what}; if nothing is to be learned from them, name folders in `splits` that lie beside one another"
            )
