"""Images that a score is measured on and that were learned from, too: told, for they make it too high."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from barlow_lab.foreign_text import shown
from trainer.data.binary_files import BinaryImages
from trainer.data.checks.copies import copies_of_files
from trainer.data.classes import in_words
from trainer.data.datasets import ImageDataSet, Images, whole_of
from trainer.data.image_files import FileImages

REMEDY = "scores come out too high; name another `test_split`, or take the images out of one of the two"
PRETRAINED_ON = (
    "scores may come out higher than on images that it has not seen, though it saw no labels; pretrain on another "
    "split, name another `test_split`, or say so beside the score"
)


def shared(
    splits: tuple[str, str],
    images: tuple[Images, Images],
    tick: Callable[[], None],
    *,
    learned_from: str = "learned from",
    remedy: str = REMEDY,
) -> str | None:
    """What to say of images of the second split, which is judged, that are among those of the first, which is learned
    from; None: there is nothing. `tick` is called for each image; `learned_from` says what is done with the first.

    Of files those are the same that are found in the same place, those that links, also hard ones, lead to, and copies,
    as far as trainer.data.checks.copies finds them. Of records those are that have the same pixels,
    of more than one colour.
    """
    (learned, judged), (first, second) = splits, images
    whole = whole_of(first), whole_of(second)
    of = f"of the {len(second):,} images of split {judged!r}, which are judged"
    if learned == judged:
        count = min(len(first), len(second))
        return f"{of}, {count:,} are {learned_from}, for both splits are one: {remedy}"
    copied = None
    if isinstance(whole[0], FileImages) and isinstance(whole[1], FileImages):
        # Their places are compared, too: a disk of a network may give a file another number at each look.
        there = _hashes(whole[0], len(first), tick), _hashes(whole[1], len(second), tick)
        same = np.isin(there[1], there[0])
        same |= np.isin(whole[1].identities[: len(second)], whole[0].identities[: len(first)])
        count = int(same.sum())
        of_one = f"of one that is {learned_from} in split {learned!r}"
        copied = copies_of_files(whole[0], whole[1], ~same, len(first), tick, of_one=of_one)
    elif isinstance(whole[0], BinaryImages) and isinstance(whole[1], BinaryImages):
        records = whole[0].records(tick), whole[1].records(tick)
        same = np.isin(records[1].identities, records[0].identities[: len(first)]) & ~records[1].one_colour
        count = int(same[: len(second)].sum())
    else:
        count = len(second) if whole[0].fingerprint == whole[1].fingerprint else 0
    told = [f"{count:,} are {learned_from} in split {learned!r}"] if count else []
    told += [copied] if copied is not None else []
    return f"{of}, {'; '.join(told)}: {remedy}" if told else None


def again(images: Images, identities: NDArray[np.int64]) -> str | None:
    """What to say of images that a split has several times, which have the same one of its `identities`; None: there
    are none."""
    if len(np.unique(identities)) == len(images):
        return None
    _, first, which, counts = np.unique(identities, return_index=True, return_inverse=True, return_counts=True)
    labelled = images if isinstance(images, ImageDataSet) else None
    labels = labelled.labels() if labelled else np.zeros(len(images), dtype=np.int64)
    mixed = np.unique(which[labels != labels[first[which]]])
    example = int(first[mixed if len(mixed) else counts > 1].min())
    places = np.flatnonzero(which == which[example])
    other = int(places[1:][np.argmax(labels[places[1:]] != labels[example])])  # of another class, if one is
    names = " and ".join(dict.fromkeys(shown(images.name(place)) for place in (example, other)))
    count = int((counts > 1).sum())
    differ = f", {len(mixed):,} of them with different classes" if labelled else ""
    of = f"; of {in_words([labelled.classes[label] for label in np.unique(labels[places])])}" if labelled else ""
    return (
        f"{count:,} {'image is' if count == 1 else 'images are'} there more than once{differ}, first {names} "
        f"({len(places):,} times{of}): each time counts as an image; take out those that are not meant"
    )


def _hashes(images: FileImages, count: int, tick: Callable[[], None]) -> NDArray[np.int64]:
    """Hashes of the paths of the first files: a million paths as objects would take 150 MB."""
    hashes = np.empty(count, dtype=np.int64)
    real: dict[bytes, bytes] = {}
    for index in range(count):
        tick()
        path = images.file(index)
        if b"/." in path or b"//" in path:
            path = os.path.normpath(path)
        folder, _, name = path.rpartition(b"/")
        if folder not in real:
            real[folder] = os.path.realpath(folder)
        hashes[index] = hash(real[folder] + b"/" + name)
    return hashes
