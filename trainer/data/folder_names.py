"""What the names of folders say of the classes of two splits, where it is not what the splits say: told, since a name
may be no class at all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from barlow_lab.foreign_text import shown
from trainer.data.datasets import Images, whole_of
from trainer.data.formats.image_folder import ImageFolder
from trainer.data.formats.labelled_files import LabelledFiles
from trainer.data.formats.passed_over import NAMED
from trainer.data.image_files import FileImages, said

MOST = 20_000
"""Images of a list whose folders are looked at: its first ones are of each class in turn."""


def at_odds(splits: tuple[str, str], images: tuple[Images, Images]) -> list[str]:
    """What to say of two splits by their folders."""
    first, second = map(whole_of, images)
    told: str | None = None
    if isinstance(first, ImageFolder) and isinstance(second, ImageFolder):
        told = _too_high(splits, first, second)
    elif isinstance(first, LabelledFiles) and isinstance(second, LabelledFiles):
        told = _other_numbers(splits, first, second)
    return [] if told is None else [told]


def folders_left(images: Images, tick: Callable[[], None]) -> str | None:
    """What to say of the folders whose images `images` are, where they are the first ones of a split and of half of the
    folders at most that they might be of; None: there is nothing. `tick` is called for each image."""
    whole = whole_of(images)
    if whole is images or not isinstance(whole, FileImages):
        return None
    left: set[bytes] = set()
    folders: set[bytes] = set()
    for index in range(len(whole)):
        tick()
        folders.add(os.path.dirname(whole.file(index)))
        if index == len(images) - 1:
            left = set(folders)
    if 2 * len(left) > min(len(images), len(folders)) or len(folders) == 1:
        return None
    example = os.path.relpath(min(left), whole.folder)
    return (
        f"the {len(images):,} images that data.limit leaves of {len(whole):,} are of {len(left):,} of {len(folders):,} "
        f"folders, first {said(example)!r}; raise it, or list the images that are meant"
    )


def _too_high(splits: tuple[str, str], first: ImageFolder, second: ImageFolder) -> str | None:
    """Of class folders that hold no image themselves and several folders of images: these may be the classes.

    Classes are the same ones in both splits; folders for each patient or film mostly are not, and those for each camera
    are the same in many a class.
    """
    nested: dict[bytes, frozenset[bytes]] = {}
    for each in first.nested.keys() & second.nested.keys():
        ours, theirs = first.nested[each], second.nested[each]
        if _most(len(ours & theirs), of=len(ours | theirs)):
            nested[each] = ours
    times = Counter(folder for folders in nested.values() for folder in folders)
    if not nested or (len(nested) > 1 and _most(sum(count > 1 for count in times.values()), of=len(times))):
        return None
    each = min(nested)
    folders, name = sorted(nested[each]), said(each)
    named = ", ".join(map(said, folders[:NAMED])) + (", ..." if len(folders) > NAMED else "")
    remedy = (
        f"say `splits: {{{splits[0]}: FOLDER/{name}, {splits[1]}: FOLDER/{name}}}` with the folders of the splits"
        if len(first.classes) == 1
        else "put them, or links to them, right below the folders of the splits"
    )
    return (
        f"{len(nested):,} of the {len(first.classes):,} class folders hold no image themselves and several folders of "
        f"images, most of them in both splits, first {name!r}: its folders {named} look like classes, and all in them "
        f"counts as {name!r}; if they are classes, {remedy}"
    )


def _most(count: int, *, of: int) -> bool:
    return 2 * count > of


def _other_numbers(splits: tuple[str, str], first: LabelledFiles, second: LabelledFiles) -> str | None:
    """What to say of lists in which each class has a folder of its own, if a folder of one name has other numbers in
    both."""
    readings: tuple[Callable[[list[str]], str], ...] = (
        "/".join,
        lambda folders: "/".join(folders[1:]),  # without that of the split
        lambda folders: folders[-1] if folders else "",
    )
    for reading in readings:
        ours, theirs = _classes_by(reading, first), _classes_by(reading, second)
        if len(both := sorted(ours.keys() & theirs.keys())) < 2:
            continue
        if not (wrong := [folder for folder in both if ours[folder] != theirs[folder]]):
            return None
        folder = wrong[0]
        return (
            f"the numbers of the classes do not fit the folders of the images: {shown(folder)!r} is class "
            f"{shown(ours[folder])!r} in split {splits[0]} and {shown(theirs[folder])!r} in {splits[1]}, and so are "
            f"{len(wrong):,} of {len(both):,} folders; give each class the same number in both lists"
        )
    return None


def _classes_by(reading: Callable[[list[str]], str], images: LabelledFiles) -> dict[str, str]:
    """The class of each folder; none where a folder has several, or a class."""
    classes: dict[str, int] = {}
    for index in range(min(len(images), MOST)):
        label = images.label(index)
        if classes.setdefault(reading(images.name(index).split("/")[:-1]), label) != label:
            return {}
    if len(set(classes.values())) < len(classes):
        return {}
    return {folder: images.classes[label] for folder, label in classes.items()}
