"""Which labelled images a semi-supervised evaluation may use: always the same ones, and told by digest.

An image is known by its key, the name that its data set gives it (`Images.name`): its path below the split, in a list
or in annotations. A file that a list names twice has ` (2)` after it the second time, so no two images share a key.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.datasets import ImageDataSet
from trainer.data.errors import DataError
from trainer.specs.classification import LabelsSpec
from trainer.specs.data_sets import DataSource
from trainer.specs.given_files import read_text
from trainer.specs.known_data_sets import KNOWN
from trainer.specs.words import shown

NAMED = 5
"""Names that an error gives."""


@dataclass(frozen=True, slots=True)
class LabelList:
    """`indices` (k,) ascending, of the data set; `digest` is the SHA-256 (hex) of the images' keys, sorted, each with a
    line feed."""

    indices: NDArray[np.int64]
    digest: str


def choose_labels(
    spec: LabelsSpec,
    name: str,
    dataset: ImageDataSet,
    source: DataSource | None,
    *,
    warn: Callable[[str], None],
) -> LabelList:
    """The images of `dataset`, which is called `name`, that `spec` asks for; `source` is the data set's entry in
    datasets.yaml, which names the list files.

    Raises:
        DataError: there is no such list, or it names images that are not found once; names the first of them.
    """
    names, labels = keys(dataset), dataset.labels()
    if spec.list is None:
        assert spec.percent is not None, "the spec requires one of the two"
        indices = balanced(names, labels, classes=len(dataset.classes), percent=spec.percent, seed=spec.seed)
        _tell_share(spec.percent, name, np.bincount(labels[indices], minlength=len(dataset.classes)), len(names), warn)
    else:
        lists = source.lists if source is not None else {}
        if spec.list not in lists:
            known = f"known: {', '.join(lists)}" if lists else "it has none"
            raise DataError(
                f"the data set has no list {spec.list!r} in this host's datasets.yaml ({known}); "
                f"add lists: {{{spec.list}: FILE}}, or ask for labels: {{percent: 1}}"
            )
        indices = listed(lists[spec.list], names, [dataset.classes[label] for label in labels.tolist()])
    lines = sorted(names[index] for index in indices.tolist())
    return LabelList(indices, hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest())


def keys(dataset: ImageDataSet) -> list[str]:
    """The key of every image, each another one."""
    names = [dataset.name(index) for index in range(len(dataset))]
    if len(set(names)) == len(names):
        return names
    taken, seen = set(names), Counter[str]()
    for place, name in enumerate(names):
        seen[name] += 1
        while seen[name] > 1:
            numbered = f"{name} ({seen[name]})"
            if numbered not in taken:
                taken.add(numbered)
                names[place] = numbered
                break
            seen[name] += 1
    return names


def _tell_share(percent: float, name: str, sizes: NDArray[np.int64], images: int, warn: Callable[[str], None]) -> None:
    """Say how many labels a percentage is, where it is not that percentage to the image: `sizes` (classes,) were drawn
    of `images`."""
    drawn, wanted, most = int(sizes.sum()), round(percent / 100 * images), int(sizes.max())
    if percent < 100 and sizes.min() < most:
        warn(
            f"{int((sizes < most).sum())} of {len(sizes)} classes have fewer than {most} images and give all of them: "
            f"{drawn} labels in all"
        )
    if drawn == wanted:
        return
    file, length = KNOWN[name].label_lists.get(percent, ("", 0)) if name in KNOWN else ("", 0)
    published = (
        f". Published numbers are of the list {file}, which has {length:,}: name it under `lists` in datasets.yaml and "
        "ask for labels: {list: NAME} to compare with them"
        if file
        else ""
    )
    warn(
        f"{percent:g} % of {images:,} images would be {wanted:,}; each of the {len(sizes):,} classes gives the same "
        f"whole number of images, {most:,}, so {drawn:,} labels are drawn, {100 * drawn / images:.3g} %{published}"
    )


def balanced(
    names: Sequence[str], labels: NDArray[np.int64], *, classes: int, percent: float, seed: int
) -> NDArray[np.int64]:
    """The same number of images of each class, max(1, round(percent / 100 x images / classes)); (k,) ascending.

    A class that has fewer gives all it has, and no other class makes up for it. 100 percent are all images. Within a
    class images come in the order of SHA-256("SEED KEY"): a list depends neither on the order of the data set
    nor on which other images there are, and that of a lower percentage is part of that of a higher one.
    """
    if percent == 100:
        return np.arange(len(names))
    count = max(1, round(percent / 100 * len(names) / classes))
    by_class: list[list[tuple[bytes, int]]] = [[] for _ in range(classes)]
    for index, (name, label) in enumerate(zip(names, labels.tolist(), strict=True)):
        by_class[label].append((hashlib.sha256(f"{seed} {name}".encode()).digest(), index))
    return np.array(sorted(index for members in by_class for _, index in sorted(members)[:count]), dtype=np.int64)


def listed(file: Path, names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """The images that a text file names, one a line; (k,) ascending. `names` are the keys of the data set's images and
    `classes` the names of their classes.

    A line is an image's key, or the end of one, or one with more folders before it, as lists of SimCLR and of other
    trees have them; or the class and the file name; or such a name, a blank and the class, as in the lists that make a
    data set. Where nothing is found, differences in Unicode form are passed over. The end of a key that begins with the
    name of a class is of no image of another class.

    Raises:
        DataError: the file cannot be read or names nothing, a name is there twice, or it is not that of exactly one
            image; names the first of them.
    """
    try:
        text = read_text(file, encoding="utf-8-sig", errors="backslashreplace")  # as keys have what is no UTF-8
    except (OSError, ValueError) as error:
        raise DataError(f"the list of labelled images cannot be read: {error}") from error
    if "\0" in text:
        raise DataError(f"the list of labelled images cannot be read: {file.name} is no text in UTF-8; save it as that")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{file.name} names no image")
    exact = _Finder(lines, names, classes, str)
    found = {line: exact.places(line) for line in lines}
    if missed := [line for line in lines if not found[line]]:
        alike = _Finder(missed, names, classes, lambda text: unicodedata.normalize("NFC", text))
        found |= {line: alike.places(line) for line in missed}
    for said, wrong in (
        ("not in the data set", [line for line in lines if not found[line]]),
        ("the name of several images; put more of its folders before it", [n for n in lines if len(found[n]) > 1]),
    ):
        if wrong:
            raise DataError(
                f"{file.name}: {shown(', '.join(wrong[:NAMED]))}: {said} ({len(wrong):,} of {len(lines):,} lines; the "
                f"data set's own names are such as {shown(names[0])})"
            )
    indices: set[int] = set()
    for line in lines:
        (index,) = found[line]
        if index in indices:
            raise DataError(f"{file.name}: {shown(line)} is there twice")
        indices.add(index)
    return np.array(sorted(indices), dtype=np.int64)


class _Finder:
    """Images by what a line of a list says."""

    def __init__(
        self, lines: Sequence[str], names: Sequence[str], classes: Sequence[str], form: Callable[[str], str]
    ) -> None:
        """Of `names` those are kept whose file some line may name: a list has a hundredth of ImageNet's."""
        self._form, self._names, self._classes = form, names, classes
        self._every_class = {form(name) for name in set(classes)}
        wanted = {said.rpartition("/")[2] for line in lines for said, _ in _readings(form(line))}
        self._by_file: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            if (file := form(name).rpartition("/")[2]) in wanted:
                self._by_file.setdefault(file, []).append(place)

    def places(self, line: str) -> list[int]:
        """The images that the line may mean, those of which it says most: one, if it is a good line."""
        for said, of in _readings(self._form(line)):
            found = self._named(_folders(said), of)
            if of is not None:
                found = [place for place in found if self._form(self._classes[place]) == of]
            if found:
                return found
        return []

    def _named(self, said: list[str], of: str | None) -> list[int]:
        candidates = self._by_file.get(said[-1], []) if said else []
        paths = {place: _folders(self._form(self._names[place])) for place in candidates}
        whole = [place for place in candidates if self._is_whole(said, paths[place], place)]
        if whole:
            longest = max(len(paths[place]) for place in whole)
            return [place for place in whole if len(paths[place]) == longest]
        found = [
            place
            for place in candidates
            if paths[place][-len(said) :] == said or said[-2:] == [self._form(self._classes[place]), said[-1]]
        ]
        # A shortened name may begin with a folder that is called like a class; without any image of that class the
        # line most likely means one that is not there.
        begins_with_class = of is None and len(said) > 1 and said[0] in self._every_class
        if begins_with_class and all(self._form(self._classes[place]) != said[0] for place in found):
            return []
        return found

    def _is_whole(self, said: list[str], path: list[str], place: int) -> bool:
        """Whether `said` is the path of an image, perhaps with folders before it. Before a file name alone the folder
        must not be another class."""
        if said[-len(path) :] != path:
            return False
        alone = len(path) == 1 and len(said) > 1
        return not alone or said[-2] == self._form(self._classes[place]) or said[-2] not in self._every_class


def _readings(line: str) -> list[tuple[str, str | None]]:
    """What a line may say: a name, or a name and its class."""
    parts = line.rsplit(None, 1)
    return [(line, None)] + ([(parts[0], parts[1])] if len(parts) == 2 else [])


def _folders(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
