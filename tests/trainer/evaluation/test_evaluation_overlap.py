"""Images that are learned from and judged, too: a score of 100 % that says nothing, told of before it is there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import runs
from PIL import Image

from barlow_lab.specs import parse_spec
from barlow_lab.specs.data_sets import parse_source
from trainer.data.checks import copies
from trainer.data.checks.overlap import shared
from trainer.data.formats.unused import unused_images
from trainer.data.registry import open_data_set, open_images
from trainer.evaluation import run_evaluation

REMEDY = "scores come out too high; name another `test_split`, or take the images out of one of the two"


def images(folder: Path, count: int, seed: int = 0) -> list[str]:
    """So many noisy images of one size in a folder; their names."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(folder / f"{number}.bmp")
    return [f"{number}.bmp" for number in range(count)]


def said(entry: dict[str, object], limit: int | None = None) -> str | None:
    source = parse_source(entry)
    train, test = (
        open_data_set("mine", split, source=source, limit=most) for split, most in (("train", limit), ("test", None))
    )
    return shared(("train", "test"), (train, test), lambda: None)


def test_a_test_split_that_is_learned_from_is_a_warning_of_the_run(tmp_path: Path) -> None:
    spec = parse_spec(
        {"kind": "knn", "data": {"name": "digits", "split": "test", "limit": 40}, "test_split": "test", "k": 1,
         "backbone_from": {"pixels": True}, "images": {"size": 8, "resize": 8}}
    )  # fmt: skip
    assert run_evaluation(spec, runs.context(tmp_path)) is not None
    assert [event.data["message"] for event in runs.events(tmp_path, kind="warning")] == [
        "data set 'digits': of the 360 images of split 'test', which are judged, 40 are learned from, for both splits "
        f"are one: {REMEDY}"
    ]


@pytest.mark.parametrize(("limit", "count"), [(None, 2), (1, 1)])
def test_images_that_two_lists_name_are_counted(tmp_path: Path, limit: int | None, count: int) -> None:
    names = images(tmp_path / "a", 6)
    (tmp_path / "linked").symlink_to("a")
    (tmp_path / "train.txt").write_text("".join(f"a/{name} 0\n" for name in names[:4]))
    (tmp_path / "test.txt").write_text(f"./linked/{names[0]} 0\na//{names[3]} 0\na/{names[4]} 0\n")
    entry = {"format": "file_list", "root": str(tmp_path), "splits": {"train": "train.txt", "test": "test.txt"}}
    assert said(entry, limit) == (
        f"of the 3 images of split 'test', which are judged, {count} are learned from in split 'train': {REMEDY}"
    )
    (tmp_path / "test.txt").write_text(f"a/{names[4]} 0\n")
    assert said(entry, limit) is None


def test_a_split_that_is_a_link_to_the_other_or_a_copy_of_it_is_told(tmp_path: Path) -> None:
    images(tmp_path / "train" / "a", 3)
    (tmp_path / "test").symlink_to("train")
    entry: dict[str, object] = {"format": "image_folder", "root": str(tmp_path)}
    assert said(entry) == (
        f"of the 3 images of split 'test', which are judged, 3 are learned from in split 'train': {REMEDY}"
    )
    (tmp_path / "test").unlink()
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    assert said(entry) == (
        "of the 3 images of split 'test', which are judged, 3 have name, size and content of one that is learned from "
        f"in split 'train': {REMEDY}"
    )
    shutil.rmtree(tmp_path / "test")
    images(tmp_path / "test" / "a", 3, seed=1)  # of the same names and sizes
    assert said(entry) is None


def test_a_copy_that_lacks_an_image_or_has_one_more_is_told(tmp_path: Path) -> None:
    entry: dict[str, object] = {"format": "image_folder", "root": str(tmp_path)}
    images(tmp_path / "train" / "a", 9)
    images(tmp_path / "train" / "b", 9, seed=1)
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    for name in ("a/3.bmp", "b/4.bmp"):
        (tmp_path / "test" / name).unlink()
    images(tmp_path / "more", 1, seed=2)
    shutil.copy(tmp_path / "more/0.bmp", tmp_path / "test/a/own.bmp")
    told = said(entry)
    assert told is not None
    assert "17 images of split 'test', which are judged, 16 have name, size and content of one that is" in told
    # Beside links, which lead to the same files:
    (tmp_path / "test/b/0.bmp").unlink()
    os.link(tmp_path / "train/b/0.bmp", tmp_path / "test/b/0.bmp")
    told = said(entry)
    assert told is not None
    assert "which are judged, 1 are learned from in split 'train'; 15 have name, size and content of one" in told


def test_copies_in_other_folders_and_by_other_names_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place in range(6):
        for split, name in (("train", f"{place}.png"), ("test", f"copy_{place}.png")):
            (tmp_path / split / "a").mkdir(parents=True, exist_ok=True)
            if split == "train":
                Image.fromarray(rng.integers(0, 255, (8 + place, 8, 3), dtype=np.uint8)).save(
                    tmp_path / "train/a" / name
                )
            else:
                shutil.copy(tmp_path / f"train/a/{place}.png", tmp_path / "test/a" / name)
    entry: dict[str, object] = {"format": "image_folder", "root": str(tmp_path)}
    told = said(entry)
    assert told is not None
    assert (
        "6 of 6 that were compared have the content of one that is learned from in split 'train' and another name"
        in told
    )
    shutil.copytree(tmp_path / "train" / "a", tmp_path / "flat")
    for split, folder in (("train", "train/a"), ("test", "flat")):
        (tmp_path / f"{split}.txt").write_text("".join(f"{folder}/{place}.png 0\n" for place in range(6)))
    told = said({"format": "file_list", "root": str(tmp_path), "splits": {"train": "train.txt", "test": "test.txt"}})
    assert told is not None
    assert "6 have name, size and content of one that is learned from in split 'train'" in told


def test_what_is_compared_has_an_end_and_does_not_see_one_class_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbered images of one size in two classes, of which those of one are copies."""
    entry: dict[str, object] = {"format": "image_folder", "root": str(tmp_path)}
    for seed, folder in enumerate(("train/a", "train/b", "test/a")):
        images(tmp_path / folder, 40, seed)
    shutil.copytree(tmp_path / "train/b", tmp_path / "test/b")
    monkeypatch.setattr(copies, "MOST_COMPARED", 20)
    told = said(entry)
    assert told is not None
    found = re.search(r"80 have name and size .* too in (\d+) of 20 compared", told)
    assert found is not None
    assert 5 <= int(found[1]) <= 15


@pytest.mark.parametrize("linked", [os.symlink, os.link])
def test_files_behind_links_are_the_same(tmp_path: Path, linked: Callable[[Path, Path], None]) -> None:
    names = images(tmp_path / "pool", 4)
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
    for place, name in enumerate(names[:3]):
        linked(tmp_path / "pool" / name, tmp_path / "train/a" / f"{place}.bmp")
    linked(tmp_path / "pool" / names[2], tmp_path / "test/a/other.bmp")
    shutil.copy(tmp_path / "pool" / names[3], tmp_path / "test/a/own.bmp")
    splits = {"train": "train", "test": "test"}
    entry: dict[str, object] = {"format": "image_folder", "root": str(tmp_path), "splits": splits}
    assert said(entry) == (
        f"of the 2 images of split 'test', which are judged, 1 are learned from in split 'train': {REMEDY}"
    )
    # And they are no images of no split, whether their split is open or not.
    source = parse_source(entry)
    train = open_data_set("mine", "train", source=source)
    for opened in ({"train": train}, {}):
        assert unused_images(source, opened, tick=lambda: None) == [
            f"images of no split, not used: 1 (pool/{names[3]}), 1 in pool"
        ]
    (tmp_path / "list.txt").write_text("train/a/0.bmp 0\n")
    lists = parse_source({"format": "file_list", "root": str(tmp_path), "splits": {"train": "list.txt"}})
    assert f"pool/{names[0]}" not in unused_images(lists, {}, tick=lambda: None)[0]


def test_records_that_are_learned_from_and_judged_are_counted_by_their_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = {split: rng.integers(0, 256, (4, 3 * 96 * 96), dtype=np.uint8) for split in ("train", "test")}
    (tmp_path / "class_names.txt").write_text("\n".join("abcdefghij"))
    for split, pixels in records.items():
        pixels.tofile(tmp_path / f"{split}_X.bin")
        np.array([1, 2, 3, 4], np.uint8).tofile(tmp_path / f"{split}_y.bin")
    entry: dict[str, object] = {"format": "stl10", "root": str(tmp_path)}
    assert said(entry) is None
    records["test"][1] = records["train"][2]
    records["test"].tofile(tmp_path / "test_X.bin")
    for limit, count in ((None, 1), (3, 1), (2, 0)):
        one = f"of the 4 images of split 'test', which are judged, 1 are learned from in split 'train': {REMEDY}"
        assert said(entry, limit) == (one if count else None)
    for whole in (shutil.copy, os.symlink):
        (tmp_path / "test_X.bin").unlink()
        whole(tmp_path / "train_X.bin", tmp_path / "test_X.bin")
        assert said(entry) == (
            f"of the 4 images of split 'test', which are judged, 4 are learned from in split 'train': {REMEDY}"
        )
    (tmp_path / "train_X.bin").write_bytes(bytes(4 * 3 * 96 * 96))  # through the link, too: told as what holds nothing
    assert said(entry) is None


@pytest.mark.parametrize("format_", ["inaturalist", "coco"])
def test_an_image_under_two_ids_is_told(tmp_path: Path, format_: str) -> None:
    names = images(tmp_path / "a", 2)
    size = {"height": 6, "width": 6}
    named = [{"id": place, "file_name": f"a/{name}", **size} for place, name in enumerate([*names, names[0]])]
    objects = [{"id": place, "image_id": place, "category_id": place // 2, "bbox": [0, 0, 2, 2]} for place in range(3)]
    categories = [{"id": place, "name": name} for place, name in enumerate(("cat", "dog"))]
    parts = {"images": named, "annotations": objects, "categories": categories}
    (tmp_path / "train.json").write_text(json.dumps(parts))
    file = "train.json" if format_ == "inaturalist" else {"images": ".", "annotations": "train.json"}
    source = parse_source({"format": format_, "root": str(tmp_path), "splits": {"train": file}})
    heard: list[str] = []
    open_images("mine", "train", source=source, warn=heard.append)
    classes = (", 1 of them with different classes", "; of 'cat', 'dog'") if format_ == "inaturalist" else ("", "")
    assert heard == [
        f"data set 'mine', split 'train': 1 image is there more than once{classes[0]}, first a/0.bmp (2 times"
        f"{classes[1]}): each time counts as an image; take out those that are not meant"
    ]
