"""Which labelled images a semi-supervised evaluation may use: always the same ones, and told by digest.

An image is known by its key, the name that its data set gives it (`Images.name`): its path below the split, or below
the folder of a list or of annotations. A file that a list names twice has ` (2)` after it the second time, so no two
images share a key.
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

from barlow_lab.foreign_text import shown
from barlow_lab.given_files import read_text
from barlow_lab.specs.data_sets import DataSource
from barlow_lab.specs.kinds.semi_supervised import LabelsSpec
from barlow_lab.specs.known_data_sets import KNOWN
from trainer.data.classes import in_words
from trainer.data.datasets import ImageDataSet, whole_of
from trainer.data.errors import DataError
from trainer.data.image_files import BACKSLASHES, NO_UTF_8
from trainer.evaluation.list_lines import SEVERAL, Finder
from trainer.evaluation.other_splits import OtherSplits

NAMED = 5
"""Names that an error gives."""
NO_TABLE = (
    "a line is the name of one image, perhaps a blank and its class behind it, without a heading, quotes, commas or "
    "semicolons, so write a table's column of names alone"
)


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
    split: str,
    warn: Callable[[str], None],
) -> LabelList:
    """The images of `dataset`, the split `split` of the data set `name`, that `spec` asks for; `source` is the data
    set's entry in datasets.yaml, which names the list files.

    Raises:
        DataError: there is no such list, or it names images that are not found once, not in this split or not within
            its limit; names the first of them.
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
        whole = whole_of(dataset)
        assert isinstance(whole, ImageDataSet)
        indices = listed(
            lists[spec.list],
            names if whole is dataset else keys(whole),
            [dataset.classes[label] for label in whole.labels().tolist()],
            limit=len(dataset),
            others=OtherSplits(whole, split, source),
        )
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


def listed(
    file: Path,
    names: Sequence[str],
    classes: Sequence[str],
    *,
    limit: int | None = None,
    others: OtherSplits | None = None,
) -> NDArray[np.int64]:
    """The images that a text file names, one a line; (k,) ascending. `names` are the keys of the split's images and
    `classes` the names of their classes, `limit` how many of them may be used, and `others` knows what is of other
    splits.

    A line is an image's key, or the end of one, or one with more folders before it, as lists of SimCLR and of other
    trees have them; or the class and the file name; or such a name, a blank and the class, as in the lists that make a
    data set. Where nothing is found, differences in Unicode form are passed over. The end of a key that begins with the
    name of a class is of no image of another class, and what names an image of another split is none of this one.

    Raises:
        DataError: the file cannot be read or names nothing, a name is there twice, or it is not that of exactly one
            image, which may be used; names the first of them.
    """
    try:
        text = read_text(file, encoding="utf-8-sig", errors="backslashreplace")  # as keys have what is no UTF-8
    except (OSError, ValueError) as error:
        raise DataError(f"the list of labelled images cannot be read: {error}") from error
    if "\0" in text:
        raise DataError(f"the list of labelled images cannot be read: {file.name}: {NO_UTF_8}")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{file.name} names no image")
    exact = Finder(lines, names, classes, str)
    found = {line: exact.place(line) for line in lines}
    if missed := [line for line in lines if found[line] is None]:
        alike = Finder(missed, names, classes, lambda text: unicodedata.normalize("NFC", text))
        found |= {line: alike.place(line) for line in missed}
    meant = {line: each for line, each in found.items() if each is not None and each.place != SEVERAL}
    absent = [line for line in lines if found[line] is None]
    backslash = f"; {BACKSLASHES}" if any("\\" in line for line in absent) else ""
    table = f"; {NO_TABLE}" if any(mark in line for line in absent for mark in ",;") else ""
    _refuse(file, lines, names, absent, f"not in the data set{backslash}{table}")
    several = "the name of several images; put more of its folders before it"
    _refuse(file, lines, names, [line for line in lines if line not in meant], several)
    if others is not None:
        elsewhere = {line: said for line, each in meant.items() if (said := others.holds(each, names[each.place]))}
        said = next(iter(elsewhere.values()), "")
        _refuse(file, lines, names, [line for line in lines if elsewhere.get(line) == said], said)
    if limit is not None:
        said = f"beyond data.limit, which leaves {limit:,} of {len(names):,} images; raise it, or leave it out"
        _refuse(file, lines, names, [line for line in lines if meant[line].place >= limit], said)
    indices: set[int] = set()
    for line in lines:
        index = meant[line].place
        if index in indices:
            raise DataError(f"{file.name}: {shown(line)} is there twice")
        indices.add(index)
    return np.array(sorted(indices), dtype=np.int64)


def _refuse(file: Path, lines: Sequence[str], names: Sequence[str], wrong: Sequence[str], said: str) -> None:
    """End with the first of the wrong lines, if there are any."""
    if wrong:
        raise DataError(
            f"{file.name}: {shown(', '.join(wrong[:NAMED]))}: {said} ({len(wrong):,} of {len(lines):,} lines; the "
            f"data set's own names are such as {shown(names[0])})"
        )
