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

from trainer.data.classes import in_words
from trainer.data.datasets import ImageDataSet
from trainer.data.errors import DataError
from trainer.specs.classification import LabelsSpec
from trainer.specs.data_sets import DataSource
from trainer.specs.given_files import read_text
from trainer.specs.known_data_sets import KNOWN
from trainer.specs.words import shown

NAMED = 5
"""Names that an error gives."""
SEVERAL = -1
"""In place of an image: it is not one alone."""


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
        _tell_unnamed(spec.list, dataset.classes, labels, indices, warn)
    lines = sorted(names[index] for index in indices.tolist())
    return LabelList(indices, hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest())


def _tell_unnamed(
    name: str,
    classes: Sequence[str],
    labels: NDArray[np.int64],
    indices: NDArray[np.int64],
    warn: Callable[[str], None],
) -> None:
    """Say which classes have images, of which the list `name` names none."""
    there, named = (np.bincount(some, minlength=len(classes)) > 0 for some in (labels, labels[indices]))
    if len(lost := np.flatnonzero(there & ~named)):
        warn(
            f"the list {name!r} names no image of {len(lost):,} of {len(classes):,} classes: "
            f"{in_words([classes[label] for label in lost.tolist()])}; nothing is learned of them, so complete it if "
            "that is not meant"
        )


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
    found = {line: exact.place(line) for line in lines}
    if missed := [line for line in lines if found[line] is None]:
        alike = _Finder(missed, names, classes, lambda text: unicodedata.normalize("NFC", text))
        found |= {line: alike.place(line) for line in missed}
    for said, kind in (
        ("not in the data set", None),
        ("the name of several images; put more of its folders before it", SEVERAL),
    ):
        if wrong := [line for line in lines if found[line] == kind]:
            raise DataError(
                f"{file.name}: {shown(', '.join(wrong[:NAMED]))}: {said} ({len(wrong):,} of {len(lines):,} lines; the "
                f"data set's own names are such as {shown(names[0])})"
            )
    indices: set[int] = set()
    for line in lines:
        index = found[line]
        assert index is not None, "refused above"
        if index in indices:
            raise DataError(f"{file.name}: {shown(line)} is there twice")
        indices.add(index)
    return np.array(sorted(indices), dtype=np.int64)


class _Places:
    """Images by a path and their class, and by the path alone. Where several have one, that alone is kept: they may be
    as many as the lines that name them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], int] = {}

    def add(self, path: str, of: str, place: int) -> None:
        for key in ((path, of), (path, None)):
            if self._known.setdefault(key, place) != place:
                self._known[key] = SEVERAL

    def get(self, path: str, of: str | None = None) -> int | None:
        """The image of this path, and of the class `of` if it is given: None where there is none, or SEVERAL."""
        return self._known.get((path, of))


class _Finder:
    """Images by what a line of a list says."""

    def __init__(
        self, lines: Sequence[str], names: Sequence[str], classes: Sequence[str], form: Callable[[str], str]
    ) -> None:
        """Of `names` those are kept whose file some line may name: a list has a hundredth of ImageNet's."""
        self._form = form
        self._every_class = {form(name) for name in set(classes)}
        said = [path for line in lines for text, _ in _readings(form(line)) if (path := _folders(text))]
        files, ends, lengths = {path[-1] for path in said}, {"/".join(path) for path in said}, {len(p) for p in said}
        self._whole, self._ends, self._files = _Places(), _Places(), _Places()
        self._deepest = 0
        for place, (name, class_) in enumerate(zip(names, classes, strict=True)):
            if (file := form(name).rpartition("/")[2]) not in files:
                continue
            path, of = _folders(form(name)), form(class_)
            self._deepest = max(self._deepest, len(path))
            self._whole.add("/".join(path), of, place)
            self._files.add(file, of, place)
            for length in range(1, len(path) + 1):
                if length in lengths and (end := "/".join(path[-length:])) in ends:
                    self._ends.add(end, of, place)

    def place(self, line: str) -> int | None:
        """The image that the line may mean, that of which it says most; None where there is none, or SEVERAL."""
        for text, of in _readings(self._form(line)):
            said = _folders(text)
            found = self._named(said, of) if said else None
            if found is not None:
                return found
        return None

    def _named(self, said: list[str], of: str | None) -> int | None:
        first = said[-2] if len(said) > 1 else None
        # The path of an image, perhaps with folders before it. Before a file name alone the folder must not be another
        # class.
        for start in range(max(0, len(said) - self._deepest), len(said)):
            path, alone = "/".join(said[start:]), start == len(said) - 1
            class_ = first if alone and first in self._every_class else None
            if self._whole.get(path, class_) is not None:
                return None if class_ is not None and of not in (None, class_) else self._whole.get(path, of or class_)
        # Its end, or the class and the file.
        end = self._ends.get("/".join(said), of)
        file = self._files.get(said[-1], first) if first is not None and of in (None, first) else None
        # A shortened name may begin with a folder that is called like a class; without any image of that class the
        # line most likely means one that is not there.
        if of is None and first is not None and said[0] in self._every_class:
            of_class = self._ends.get("/".join(said), said[0]) is not None or (file is not None and first == said[0])
            if not of_class:
                return None
        found = {place for place in (end, file) if place is not None}
        return SEVERAL if len(found) > 1 else next(iter(found), None)


def _readings(line: str) -> list[tuple[str, str | None]]:
    """What a line may say: a name, or a name and its class."""
    parts = line.rsplit(None, 1)
    return [(line, None)] + ([(parts[0], parts[1])] if len(parts) == 2 else [])


def _folders(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
