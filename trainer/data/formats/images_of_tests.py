"""Images of a split that are, by datasets.yaml or by the name of their folder, those of a test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable

from barlow_lab.specs.data_sets import ImageFolderSource, ImagesSource
from trainer.data.hearing import nobody
from trainer.data.image_files import said

_OF_A_TEST = (b"test", b"val", b"valid", b"validation", b"eval")
"""What people call folders that nothing is to be learned from,"""
_OF_A_TRAINING = (b"train", b"training")
"""and those beside them."""


def is_called_as_test(folder: bytes) -> bool:
    """Whether a folder is called as people call that of a test."""
    return folder.lower() in _OF_A_TEST


class ImagesOfTests:
    """Those of one split, which is a folder of the root as the others are."""

    def __init__(self, source: ImageFolderSource | ImagesSource, split: str) -> None:
        self._split = split
        self._folder = source.splits.get(split, split)
        here = source.root / self._folder
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

    def may_hold(self, paths: bytes) -> bool:
        """Whether among paths, one text without separators, may be such: neither do these need a look then."""
        lowered = paths.lower()
        return any(folder + b"/" in lowered for folder in _OF_A_TEST)

    def warn_of_classes(self, name: str, classes: Iterable[bytes], warn: Callable[[str], None]) -> None:
        """Warn where class folders of the data set `name` look like splits: of a tree CLASS/SPLIT a class is read as a
        split, and its splits as classes."""
        called = [(each, each.lower()) for each in classes]
        tests = [said(each) for each, lowered in called if lowered in _OF_A_TEST]
        trainings = [said(each) for each, lowered in called if lowered in _OF_A_TRAINING]
        if tests and trainings:
            here = "" if self._folder == "." else f"{self._folder}/"
            warn(
                f"data set {name!r}, split {self._split!r}: its class folders {trainings[0]!r} and {tests[0]!r} are "
                f"called like splits, and each counts as a class; if they are splits, say `splits: {{train: "
                f"{here}{trainings[0]}, test: {here}{tests[0]}}}`"
            )

    def warn(self, name: str, paths: Iterable[bytes], warn: Callable[[str], None]) -> None:
        """Count those among `paths`, below the folder of the split of the data set `name`, and warn of them."""
        if warn is nobody:
            return
        held: Counter[tuple[str, str]] = Counter()
        deeper: Counter[bytes] = Counter()
        for path in paths:
            splits = [folder for folder in self._splits if folder == b"." or path.startswith(folder + b"/")]
            for folder in splits:
                held[said(folder), self._splits[folder]] += 1
            folders = path.split(b"/")[:-1]
            place = next((place for place, folder in enumerate(folders) if folder.lower() in _OF_A_TEST), None)
            if place == 0 and folders[0] not in self._splits:
                held[said(folders[0]), "by its name images of a test"] += 1
            elif place and not splits:
                deeper[b"/".join(folders[: place + 1])] += 1
        for (where, what), count in sorted(held.items()):
            warn(
                f"data set {name!r}, split {self._split!r} holds {count:,} images of its folder {where!r}, which is "
                f"{what}; if nothing is to be learned from them, name folders in `splits` that lie beside one another"
            )
        if deeper:
            warn(
                f"data set {name!r}, split {self._split!r} holds {deeper.total():,} images of {len(deeper):,} "
                f"{'folders' if len(deeper) > 1 else 'folder'} within its folders, by name those of a test, first "
                f"{said(min(deeper))!r}; they are taken as all others are. If nothing is to be learned from them, or "
                "their folders are classes, put the files into SPLIT/CLASS folders, or list them (`format: file_list`)"
            )
