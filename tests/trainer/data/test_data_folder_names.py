"""Folders whose names say another thing of the classes of two splits than the splits do, and those that say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from barlow_lab.specs.data_sets import parse_source
from trainer.data.folder_names import at_odds, folders_left
from trainer.data.registry import open_images
from trainer.survey import survey


def told(source_of: dict[str, object]) -> list[str]:
    source = parse_source(source_of)
    heard: list[str] = []
    train, test = (open_images("mine", split, source=source, warn=heard.append) for split in ("train", "test"))
    assert not heard, "what one split alone says is no reason"
    return at_odds(("train", "test"), (train, test))


def tree(root: Path, train: Sequence[str], test: Sequence[str]) -> dict[str, object]:
    """An image in each folder."""
    for split, folders in (("train", train), ("test", test)):
        for folder in folders:
            (root / split / folder).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(root / split / folder / "1.png")
    return {"format": "image_folder", "root": str(root)}


def test_class_folders_whose_folders_look_like_classes_are_told_of(tmp_path: Path) -> None:
    below = ["images/a", "images/b", "images/c/x"]
    assert told(tree(tmp_path / "one", below, below)) == [
        "1 of the 1 class folders hold no image themselves and several folders of images, most of them in both splits, "
        "first 'images': its folders a, b, c look like classes, and all in them counts as 'images'; if they are "
        "classes, say `splits: {train: FOLDER/images, test: FOLDER/images}` with the folders of the splits"
    ]
    below = ["animals/cat", "animals/dog", "things", "one/images"]
    (said,) = told(tree(tmp_path / "more", below, below))
    assert said.startswith("1 of the 3 class folders hold no image themselves")
    assert said.endswith("; if they are classes, put them, or links to them, right below the folders of the splits")
    entry = survey("mine", parse_source({"format": "image_folder", "root": str(tmp_path / "more")}), lambda said: None)
    assert [note for note in entry.notes if "look like classes" in note] == [f"data set 'mine': {said}"]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["ill/p1", "ill/p2", "well/p3", "well/p4"], ["ill/p5", "ill/p6", "well/p7", "well/p8"]),  # patients
        ([f"run/g{n:02}" for n in range(8, 12)], [f"run/g{n:02}" for n in range(1, 9)]),  # films
        ([f"run/{n}" for n in range(9)], ["run/0", "run/1", "run/2"]),  # numbered in each split
        ([f"{of}/{camera}" for of in "ab" for camera in ("left", "right")],) * 2,
        (["a/x", "a/y", "a"], ["a/x", "a/y", "a"]),  # with an image of its own
    ],
)
def test_folders_of_patients_films_and_cameras_are_no_classes(
    tmp_path: Path, train: Sequence[str], test: Sequence[str]
) -> None:
    for split, folders in (("train", train), ("test", test)):
        for folder in folders:
            (tmp_path / split / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(tmp_path / split / folder / "1.png")
    assert told({"format": "image_folder", "root": str(tmp_path)}) == []


def lists(root: Path, train: Sequence[str], test: Sequence[str]) -> dict[str, object]:
    """Of lines FOLDER NUMBER, each with two images."""
    root.mkdir(exist_ok=True)
    for split, lines in (("train", train), ("test", test)):
        written = []
        for line in lines:
            folder, number = line.split()
            (root / folder).mkdir(parents=True, exist_ok=True)
            for image in range(2):
                Image.new("RGB", (4, 4)).save(root / folder / f"{number}-{image}.png")
                written.append(f"{folder}/{number}-{image}.png {number}\n")
        (root / f"{split}.txt").write_text("".join(written))
    return {"format": "file_list", "root": str(root), "splits": {"train": "train.txt", "test": "test.txt"}}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["train/cat 0", "train/dog 1", "train/owl 2"], ["val/dog 0", "val/cat 1", "val/owl 2"]),
        (["cat 0", "dog 1", "owl 2"], ["dog 0", "cat 1", "owl 2"]),
        (["a/cat/train 0", "a/dog/train 1"], ["b/cat/train 1", "b/dog/train 0"]),
    ],
)
def test_lists_that_number_their_folders_otherwise_are_told(
    tmp_path: Path, train: Sequence[str], test: Sequence[str]
) -> None:
    (said,) = told(lists(tmp_path, train, test))
    assert "cat" in said
    assert "is class '0' in split train and '1' in test, and so are 2 of " in said
    assert said.endswith("folders; give each class the same number in both lists")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["train/cat 0", "train/dog 1"], ["val/cat 0", "val/dog 1"]),
        (["s0 0", "s1 0", "s2 1"], ["s0 0", "s1 1", "s2 1"]),  # parts of a sorted list
        (["all 0", "all 1"], ["all 0", "all 1"]),
        (["train/0 0", "train/1 1"], ["val/a 1", "val/b 0"]),
    ],
)
def test_folders_that_are_no_class_each_say_nothing_of_a_list(
    tmp_path: Path, train: Sequence[str], test: Sequence[str]
) -> None:
    assert told(lists(tmp_path, train, test)) == []


def left(root: Path, limit: int, **entry: object) -> str | None:
    source = parse_source({"format": "image_folder", "root": str(root), **entry})
    return folders_left(open_images("mine", "train", source=source, limit=limit), lambda: None)


def test_a_limit_that_leaves_few_folders_is_told_with_numbers(tmp_path: Path) -> None:
    for folder, count in (("a/x", 4), ("a/y", 4), ("b/x", 4), ("b/y", 4)):
        (tmp_path / "train" / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4)).save(tmp_path / "train" / folder / f"{number}.png")
    assert left(tmp_path, 8) == (
        "the 8 images that data.limit leaves of 16 are of 2 of 4 folders, first 'a/x'; raise it, or list the images "
        "that are meant"
    )
    assert left(tmp_path, 10) is None
    assert left(tmp_path, 2) is None, "two images are of two folders at most"
    assert left(tmp_path, 100) is None
    assert left(tmp_path, 8, format="images") is None
