"""Classes that are there, and those that are only spoken of: told by name, never counted."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from barlow_lab.foreign_text import shown
from trainer.data.datasets import AnnotatedDataSet, ImageDataSet, Images, whole_of
from trainer.data.ignored import ignored_as

NAMED = 5
"""Classes that a message names."""


def in_words(classes: Sequence[str]) -> str:
    """The first of the classes by name, and how many more there are."""
    said = ", ".join(shown(f"{name!r}") for name in classes[:NAMED])
    return f"{said}{_more(classes)}"


def without_images(numbers: NDArray[np.int64]) -> str | None:
    """What to say of a list whose classes are `numbers`, (k,) ascending, about those from 0 that it passes over."""
    count = int(numbers[-1]) + 1 - len(numbers)
    if not count:
        return None
    there = set(numbers[: NAMED + 1].tolist())  # the highest may be a billion
    first = list(itertools.islice((number for number in itertools.count() if number not in there), min(count, NAMED)))
    more = f" and {count - NAMED:,} more" if count > NAMED else ""
    which = f"class {first[0]}, which is" if count == 1 else f"classes {', '.join(map(str, first))}{more}, which are"
    from_one = "; do the numbers count from 1?" if numbers[0] == 1 and count == 1 else ""
    return f"no image is of {which} not counted: {len(numbers):,} classes have images{from_one}"


def different(name: str, splits: tuple[str, str], classes: tuple[Sequence[str], Sequence[str]]) -> str | None:
    """What the classes of two splits of the data set `name` have that is not the same; None: they are."""
    (first, second), (ours, theirs) = splits, classes
    if tuple(ours) == tuple(theirs):
        return None
    begun = f"splits {first} and {second} of {name} have different classes"
    only = [[one for one in mine if one not in set(other)] for mine, other in ((ours, theirs), (theirs, ours))]
    if not any(only):
        here, there = next((a, b) for a, b in zip(ours, theirs, strict=False) if a != b)
        return (
            f"{begun}: the names are the same in another order, {here!r} stands in {first} where {there!r} stands in "
            f"{second}; give each class the same number in both"
        )
    said = []
    for form, what in _FORMS:
        theirs_by_form = {form(one): one for one in only[1]}
        pairs = [(one, other) for one in only[0] if (other := theirs_by_form.pop(form(one), None)) is not None]
        for one, other in pairs:
            only[0].remove(one)
            only[1].remove(other)
        said += [f"{one!a} of {first} and {other!a} of {second} {what}: rename one" for one, other in pairs[:NAMED]]
        said += [f"and {len(pairs) - NAMED:,} pairs more"] if len(pairs) > NAMED else []
    said += [f"{split} alone has {in_words(names)}" for split, names in zip(splits, only, strict=True) if names]
    return f"{begun}: {'; '.join(said)}"


def alike(classes: Sequence[str]) -> list[str]:
    """What to say of classes of one data set whose names are the same, or differ as those of one class do that was
    written in two ways."""
    said = []
    if again := sorted(name for name, count in Counter(classes).items() if count > 1):
        said.append(
            f"several classes are called {in_words(again)}: they count as different ones; rename all but one, or join "
            "them"
        )
    seen = dict.fromkeys(classes)
    for form, what in _FORMS:
        names: dict[str, list[str]] = {}
        for name in seen:
            names.setdefault(form(name), []).append(name)
        same = [those for those in names.values() if len(those) > 1]
        said += [
            f"classes {' and '.join(f'{name!a}' for name in those[:NAMED])}{_more(those)} {what}: they count as "
            f"{len(those):,}; if they are one, give it one name"
            for those in same[:NAMED]
        ]
        said += [f"of {len(same) - NAMED:,} classes more names {what}"] if len(same) > NAMED else []
        seen = dict.fromkeys(those[0] for those in names.values())
    return said


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""


def uneven(splits: tuple[str, str], images: tuple[Images, Images], *, limit: str = "data.limit") -> list[str]:
    """Of two splits with the same classes: which names are `alike`, which classes only one of them has images or
    objects of, or none has, whether there is one alone, of which nothing is left where only the first images of a split
    are taken, as the field `limit` of the spec says, and of which all objects are ignored."""
    names = images[0].classes
    said = alike(names)
    if len(names) == 1 and isinstance(images[0], ImageDataSet):
        said.append(
            f"there is one class alone, {in_words(names)}, so that every score is 100 and says nothing; if its folder "
            "holds those of the classes, name it in `splits` of datasets.yaml"
        )
    there = [known for each in images if (known := present(whole_of(each))) is not None]
    if len(there) < 2:
        return said
    for place, other in ((0, 1), (1, 0)):
        if len(lacking := np.flatnonzero(there[place] & ~there[other])):
            of = in_words([names[label] for label in lacking])
            said.append(f"of {of} only split {splits[place]} has any, and {splits[other]} none")
    if len(neither := np.flatnonzero(~there[0] & ~there[1])):
        of = in_words([names[label] for label in neither])
        said.append(f"of {of} neither split {splits[0]} nor {splits[1]} has any")
    for place, split in enumerate(splits):
        taken = present(images[place])
        if taken is not None and len(lost := np.flatnonzero(there[place] & ~taken)):
            what = ("learned of", "asked about")[place]
            said.append(
                f"{limit} leaves {len(lost):,} of {len(names):,} classes of split {split} without any: "
                f"{in_words([names[label] for label in lost])}; nothing is {what} them, so raise it or leave it out"
            )
    for place, split in enumerate(splits):
        said += _ignored_alone(split, images[place], place)
    return said


def _ignored_alone(split: str, images: Images, place: int) -> list[str]:
    """Which classes of a split have objects, of which none counts; `place` is 1 for the split that is judged."""
    if not isinstance(images, AnnotatedDataSet):
        return []
    presence = images.presence()
    which = np.flatnonzero((presence < 0).any(axis=0) & ~(presence > 0).any(axis=0))
    if not len(which):
        return []
    kind = ignored_as(difficult=images.ignored_are_difficult)
    names = in_words([images.classes[label] for label in which])
    begun = f"of {names} split {split} has only objects that are {kind.called} or have no area: "
    if place:
        return [f"{begun}no score counts them"]
    if images.ignored_are_difficult:
        return [f"{begun}a detector learns of the difficult ones, a support vector machine of none"]
    return [f"{begun}nothing is learned of them"]


def present(images: Images, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.bool_] | None:
    """(classes,) whether there is any of a class in the images of these rows; None where there are no classes."""
    if isinstance(images, ImageDataSet):
        return np.bincount(images.labels()[rows], minlength=len(images.classes)) > 0
    if isinstance(images, AnnotatedDataSet):
        there: NDArray[np.bool_] = (images.presence()[rows] != 0).any(axis=0)
        return there
    return None


def none_readable(classes: Sequence[str], lost: NDArray[np.int64], where: str) -> str:
    """What to say of the classes `lost`, of which no image can be read."""
    which = "class" if len(lost) == 1 else f"{len(lost):,} of {len(classes):,} classes:"
    names = in_words([classes[label] for label in lost])
    whom = "it" if len(lost) == 1 else "them"
    return f"no image of {which} {names} can be read ({where}): nothing is learned of or asked about {whom}"


def _letters(name: str) -> str:
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", _form(name).casefold().strip())


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


_FORMS = (
    (_form, "look alike and differ in their Unicode form alone"),
    (_letters, "differ in small and large letters, blanks, hyphens or underscores alone"),
)
"""In which names are the same that stand for one class, perhaps, and how those differ."""
