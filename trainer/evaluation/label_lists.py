"""Which labelled images a semi-supervised evaluation may use: always the same ones, and told by digest.

An image is known by `CLASS/NAME`: the name of its class and its own file name.
"""

from __future__ import annotations

import hashlib
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
from trainer.specs.words import shown

NAMED = 5
"""Names that an error gives."""


@dataclass(frozen=True, slots=True)
class LabelList:
    """`indices` (k,) ascending, of the data set; `digest` is the SHA-256 (hex) of the images' CLASS/NAME, sorted, each
    with a line feed."""

    indices: NDArray[np.int64]
    digest: str


def choose_labels(
    spec: LabelsSpec,
    dataset: ImageDataSet,
    source: DataSource | None,
    *,
    warn: Callable[[str], None],
) -> LabelList:
    """The images of `dataset` that `spec` asks for; `source` is the data set's entry in datasets.yaml, which names the
    list files.

    Raises:
        DataError: there is no such list, or it names images that are not found once; names the first of them.
    """
    labels = dataset.labels()
    names = [f"{dataset.classes[label]}/{dataset.name(index)}" for index, label in enumerate(labels.tolist())]
    if spec.list is None:
        assert spec.percent is not None, "the spec requires one of the two"
        indices = balanced(names, labels, classes=len(dataset.classes), percent=spec.percent, seed=spec.seed)
        sizes = np.bincount(labels[indices], minlength=len(dataset.classes))
        if spec.percent < 100 and sizes.min() < sizes.max():
            warn(
                f"{int((sizes < sizes.max()).sum())} of {len(sizes)} classes have fewer than {sizes.max()} images and "
                f"give all of them: {len(indices)} labels in all"
            )
        share = 100 * len(indices) / len(names)
        if abs(share - spec.percent) > 0.1 * spec.percent:
            warn(
                f"{spec.percent:g} % of {len(names):,} images in {len(sizes)} classes are {len(indices)} labels here, "
                f"{share:.2g} %: every class gives the same whole number of images, one at least"
            )
    else:
        lists = source.lists if source is not None else {}
        if spec.list not in lists:
            known = f"known: {', '.join(lists)}" if lists else "it has none"
            raise DataError(
                f"the data set has no list {spec.list!r} in this host's datasets.yaml ({known}); "
                f"add lists: {{{spec.list}: FILE}}, or ask for labels: {{percent: 1}}"
            )
        indices = listed(lists[spec.list], names)
    lines = sorted(names[index] for index in indices.tolist())
    return LabelList(indices, hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest())


def balanced(
    names: Sequence[str], labels: NDArray[np.int64], *, classes: int, percent: float, seed: int
) -> NDArray[np.int64]:
    """The same number of images of each class, max(1, round(percent / 100 x images / classes)); (k,) ascending.

    A class that has fewer gives all it has, and no other class makes up for it. 100 percent are all images. Within a
    class images come in the order of SHA-256("SEED CLASS/NAME"): a list depends neither on the order of the data set
    nor on which other images there are, and that of a lower percentage is part of that of a higher one.
    """
    if percent == 100:
        return np.arange(len(names))
    count = max(1, round(percent / 100 * len(names) / classes))
    by_class: list[list[tuple[bytes, int]]] = [[] for _ in range(classes)]
    for index, (name, label) in enumerate(zip(names, labels.tolist(), strict=True)):
        by_class[label].append((hashlib.sha256(f"{seed} {name}".encode()).digest(), index))
    return np.array(sorted(index for members in by_class for _, index in sorted(members)[:count]), dtype=np.int64)


def listed(file: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """The images that a text file names, one a line, with or without the folder of the class (and folders above it),
    as the lists of SimCLR do; (k,) ascending.

    Raises:
        DataError: the file cannot be read or names nothing, a name is there twice, or it is not that of exactly one
            image; names the first of them.
    """
    try:
        lines = [line.strip() for line in read_text(file, encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"the list of labelled images cannot be read: {error}") from error
    if not lines:
        raise DataError(f"{file.name} names no image")
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
        places.setdefault(name.rpartition("/")[2], []).append(index)
    found = {line: places.get("/".join(line.split("/")[-2:]), []) for line in lines}
    for said, wrong in (
        ("not in the data set", [line for line in lines if not found[line]]),
        ("the name of several images; put the folder of the class before it", [n for n in lines if len(found[n]) > 1]),
    ):
        if wrong:
            raise DataError(
                f"{file.name}: {shown(', '.join(wrong[:NAMED]))}: {said} ({len(wrong):,} of {len(lines):,} lines)"
            )
    indices: set[int] = set()
    for line in lines:
        (index,) = found[line]
        if index in indices:
            raise DataError(f"{file.name}: {shown(line)} is there twice")
        indices.add(index)
    return np.array(sorted(indices), dtype=np.int64)
