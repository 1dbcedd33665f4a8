"""python -m trainer.survey DATASETS.yaml [NAME ...]: what is in the data sets of a host, one line of JSON each.

A worker runs it to say what its host has: the sets are opened by the readers that jobs use, so what is wrong with one
is what a job would end with.
"""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in

import argparse
import itertools
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from barlow_lab import kernel
from barlow_lab.commands import run_command
from barlow_lab.foreign_text import shown, shown_lines
from barlow_lab.specs import SpecError
from barlow_lab.specs.catalogue import DataSetEntry
from barlow_lab.specs.common import NAME_PATTERN
from barlow_lab.specs.data_sets import DataSource, ImageFolderSource, annotations_of, load_data_sets, unchecked
from trainer.data.binary_files import BinaryImages
from trainer.data.checks.inspection import look_at, told_of
from trainer.data.checks.overlap import shared
from trainer.data.classes import alike, different
from trainer.data.datasets import AnnotatedDataSet, ImageDataSet, Images
from trainer.data.errors import DataError, SplitNotThere
from trainer.data.folder_names import at_odds
from trainer.data.formats.opening import splits_of
from trainer.data.formats.system_names import system_name
from trainer.data.formats.unused import is_split, unused_images
from trainer.data.object_numbers import many_without, more_than_found
from trainer.data.registry import open_images

SAY_SECONDS = 10.0

LONGEST_NOTE = 1000
MOST_NOTES = 20
MOST_UNLIKE = 2
"""Splits with other classes than the first, each of which has a note: others have one together."""
NAMED = 4
"""Folders of many that a note names."""


def survey(name: str, source: DataSource, say: Callable[[str], None]) -> DataSetEntry:
    """Open every split of a data set and count; what is wrong stands in `fault`, and in `notes` what it has beside its
    splits, of which `say` is told as well.

    Of an image folder without `splits` every folder that is a split counts, and of the others `say` is told.
    """
    unknown = unchecked(source)
    found: dict[str, Images] = {}
    faults: list[str] = []
    refused: dict[str, str] = {}
    absent: list[str] = []
    notes: list[str] = []

    def note(said: str) -> None:
        cut = shown(said if len(said) <= LONGEST_NOTE else f"{said[:LONGEST_NOTE]}...")
        if cut not in notes:  # readers say of several splits alike what they say of all
            say(said)
            notes.append(cut)

    try:
        for split in splits_of(source) or _folders(source.root):
            try:
                found[split] = open_images(
                    name, split, source=source, tick=_Ticks(f"{name}, split {split}", say), warn=note
                )
            except SplitNotThere as error:
                absent.append(str(error))
            except DataError as error:
                refused[split] = str(error)
    except OSError as error:
        faults.append(f"data set {name!r} cannot be read: {error}")
    if found:
        of_splits = len(notes)
        for said in unused_images(source, found, tick=_Ticks(f"{name}, beside its splits", say)):
            note(f"data set {name!r}: {said}")
        notes = notes[of_splits:] + notes[:of_splits]  # as there may be too many, first what of no other note tells
    for said in absent:
        note(f"data set {name!r}: {said}")
    if not found:
        faults += absent
    for images in found.values():
        for said in alike(images.classes):
            note(f"data set {name!r}: {said}")
    for said in _unlike(name, found):
        note(said)
    for pair in itertools.pairwise(found):
        for said in at_odds(pair, (found[pair[0]], found[pair[1]])):
            note(f"data set {name!r}: {said}")
    any_folder = isinstance(source, ImageFolderSource) and not source.splits
    if found and any_folder:
        for said in _no_splits(name, source.root, refused):
            note(said)
    else:
        faults = [*refused.values(), *faults]
    sides: set[tuple[int, int]] = set()
    blind: list[str] = []
    try:
        train, test = found.get("train"), found.get("test")
        if isinstance(train, BinaryImages) and isinstance(test, BinaryImages):  # in whose formats these two are fixed
            ticks = _Ticks(f"{name}, images that both splits have", say)
            if both := shared(("train", "test"), (train, test), ticks):
                note(f"data set {name!r}: {both}")
        for split, images in found.items():
            ticks = _Ticks(f"{name}, a look at split {split}", say)
            for said in told_of(images, ticks):
                note(f"data set {name!r}, split {split!r}: {said}")
            if isinstance(images, AnnotatedDataSet):
                for found_of in (more_than_found(images), many_without(images)):
                    if found_of:
                        note(f"data set {name!r}, split {split!r}: {found_of}")
            look = look_at(images, ticks)
            sides |= look.sides
            for said in look.told:
                note(said)
            if look.lost:
                note(f"data set {name!r}, split {split!r}: {look.lost}")
            if look.unreadable:
                said = (
                    f"data set {name!r}, split {split!r}: {look.unreadable:,} of {look.looked_at:,} images looked at "
                    f"cannot be read, first {look.first}"
                )
                if look.unreadable == look.looked_at:
                    blind.append(said)
                else:
                    note(said)
    except OSError as error:
        faults.append(f"data set {name!r} cannot be read: {error}")
    if any_folder and len(blind) < len(found):  # perhaps a folder that is meant for no split
        for said in blind:
            note(said)
    else:
        faults += blind
    # Not Path.is_file, which raises where a folder on the way may not be searched.
    faults += [f"list {list_!r} of data set {name!r} is not at {file}" for list_, file in source.lists.items()
               if not os.path.isfile(file)]  # fmt: skip
    if not found or faults:
        fault = shown(faults[0])
        return unknown.model_copy(update={"checked": True, "fault": fault, "notes": _most_of(notes)})
    masks = all(images.has_masks for images in found.values() if isinstance(images, AnnotatedDataSet))
    return unknown.model_copy(
        update={
            "splits": {split: len(images) for split, images in found.items()},
            "classes": max(len(images.classes) for images in found.values()) or None,
            "image_size": _side(sides) or unknown.image_size,
            "annotations": [each for each in annotations_of(source) if each != "masks" or masks],
            "unlabelled": [s for s, images in found.items() if not isinstance(images, ImageDataSet | AnnotatedDataSet)],
            "checked": True,
            "notes": _most_of(notes),
        }
    )


def _unlike(name: str, found: Mapping[str, Images]) -> list[str]:
    """What is said of splits whose classes are not those of the split for training, or else of the first."""
    splits = sorted((split for split, each in found.items() if each.classes), key=lambda split: split != "train")
    said = []
    for split in splits[1:]:
        if unlike := different(name, (splits[0], split), (found[splits[0]].classes, found[split].classes)):
            said.append(f"{unlike} (a job that learns from one and is judged on the other is refused)")
    if (more := len(said) - MOST_UNLIKE) > 0:
        said[MOST_UNLIKE:] = [f"data set {name!r}: {more:,} splits more have other classes than {splits[0]}"]
    return said


def _no_splits(name: str, root: Path, refused: dict[str, str]) -> list[str]:
    """What is said of folders that are no splits, `refused` for a reason each: of those without class folders, which
    may be one for every month, in one sentence."""
    flat = [folder for folder in refused if _is_flat(root / folder)]
    if len(flat) < 2:
        return [f"{reason}; it is not counted as a split" for reason in refused.values()]
    named = f"{', '.join(flat[:NAMED])}{', ...' if len(flat) > NAMED else ''}"
    return [
        f"data set {name!r}: {len(flat):,} folders of {root} are not counted as splits, as no class folder is in them: "
        f"{named}; images without labels are taken as `format: images`"
    ] + [f"{reason}; it is not counted as a split" for folder, reason in refused.items() if folder not in flat]


def _is_flat(folder: Path) -> bool:
    try:
        return not is_split(os.fsencode(folder))
    except OSError:
        return False


def _most_of(notes: list[str]) -> list[str]:
    if len(notes) <= MOST_NOTES:
        return notes
    left = len(notes) - (MOST_NOTES - 1)
    return [*notes[: MOST_NOTES - 1], f"and {left:,} notes more, in the worker's log"]


def _side(sides: set[tuple[int, int]]) -> int | None:
    """The side of square images, if those that were looked at all have one."""
    if len(sides) != 1:
        return None
    ((height, width),) = sides
    return height if height == width else None


def _folders(root: Path) -> list[str]:
    # What is wrong with a root that is not there, or has no folders, is told by what opens a split. A folder that no
    # spec can name is no split.
    if not root.is_dir():
        return ["train"]
    named = (
        e.name for e in root.iterdir() if re.fullmatch(NAME_PATTERN, e.name) and not system_name(os.fsencode(e.name))
    )
    return sorted(name for name in named if (root / name).is_dir()) or ["train"]


class _Ticks:
    """Says from time to time how many units of work are done."""

    def __init__(self, what: str, say: Callable[[str], None]) -> None:
        self._what = what
        self._say = say
        self._count = 0
        self._spoke_at = time.monotonic()

    def __call__(self) -> None:
        self._count += 1
        if self._count % 1000 == 0 and time.monotonic() - self._spoke_at > SAY_SECONDS:
            self._spoke_at = time.monotonic()
            self._say(f"{self._what}: {self._count:,} files and records so far")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 1 where a set has a fault, 2 where the file has."""
    parser = argparse.ArgumentParser(prog="python -m trainer.survey", description=__doc__)
    parser.add_argument("file", type=Path, metavar="DATASETS.yaml")
    parser.add_argument("names", nargs="*", metavar="NAME", help="left out: all")
    chosen = parser.parse_args(arguments)
    kernel.die_with_parent()
    os.nice(10)  # jobs come first
    try:
        sources = load_data_sets(chosen.file)
    except (OSError, SpecError) as error:
        print(shown_lines(f"{chosen.file}: {error}"), file=sys.stderr)
        return 2
    if unknown := sorted(set(chosen.names) - sources.keys()):
        print(f"{chosen.file} has no {', '.join(unknown)}; it has {', '.join(sources)}", file=sys.stderr)
        return 2
    whole = True
    for name in chosen.names or sources:
        entry = survey(name, sources[name], lambda said: print(shown(said), file=sys.stderr, flush=True))
        whole = whole and entry.fault is None
        print(json.dumps({"name": name, "entry": entry.model_dump()}), flush=True)
    return 0 if whole else 1


if __name__ == "__main__":
    run_command("python -m trainer.survey", main)
