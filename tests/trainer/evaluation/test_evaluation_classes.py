"""Classes that two splits do not share, or that nothing is of, from the files to the words of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from PIL import Image

from barlow_lab.specs import parse_spec
from barlow_lab.specs.data_sets import CocoFiles, CocoSource, ImageFolderSource
from trainer.data.classes import alike, different, uneven
from trainer.data.datasets import ArrayDataSet
from trainer.data.errors import DataError
from trainer.evaluation import run_evaluation
from trainer.survey import survey

NFC, NFD = "caf\u00e9", "cafe\u0301"


def tree(root: Path, classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """An image folder with four images of every class; its entry."""
    rng = np.random.default_rng(0)
    for split, names in classes.items():
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                image = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(image).save(root / split / name / f"{number}.png")
    return {"format": "image_folder", "root": str(root)}


def run(folder: Path, entry: Mapping[str, Any], kind: str = "knn", **changes: Any) -> dict[str, Any]:
    more = {"k": 3} if kind == "knn" else {"epochs": 1}
    spec = parse_spec(
        {
            "kind": kind,
            "data": {"name": "mine"},
            "images": {"size": 16, "resize": 16},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
            "batch_size": 8,
            **more,
            **changes,
        }
    )
    context = runs.context(folder)
    context.inputs["data"] = {"mine": dict(entry)}
    result = run_evaluation(spec, context)
    assert result is not None
    return result


def warnings(folder: Path) -> list[str]:
    return [event.data["message"] for event in runs.events(folder, kind="warning")]


def test_classes_that_one_split_alone_has_are_named(tmp_path: Path) -> None:
    entry = tree(tmp_path / "data", {"train": ["a", "b", "c"], "test": ["a", "b", "d"]})
    said = "splits train and test of mine have different classes: train alone has 'c'; test alone has 'd'"
    with pytest.raises(DataError) as refused:
        run(tmp_path / "run", entry)
    assert str(refused.value) == said
    source = ImageFolderSource(format="image_folder", root=tmp_path / "data")
    (note,) = survey("mine", source, lambda said: None).notes
    assert note == f"{said} (a job that learns from one and is judged on the other is refused)"


def test_of_many_splits_with_other_classes_the_first_are_named(tmp_path: Path) -> None:
    tree(tmp_path, {"train": "ab", **{f"more-{number}": f"a{number}" for number in range(5)}})
    notes = survey("mine", ImageFolderSource(format="image_folder", root=tmp_path), lambda said: None).notes
    assert [note[:44] for note in notes] == [
        "splits train and more-0 of mine have differe",
        "splits train and more-1 of mine have differe",
        "data set 'mine': 3 splits more have other cl",
    ]


def test_categories_in_another_order_are_noted_where_every_job_refuses_them(tmp_path: Path) -> None:
    splits = {}
    for number, (split, names) in enumerate({"test": "ba", "train": "ab", "val": "ab"}.items()):
        (tmp_path / split).mkdir()
        Image.new("RGB", (9, 8), (90, 70 * number, 0)).save(tmp_path / split / "0.png")
        value = {
            "images": [{"id": 0, "file_name": "0.png", "width": 9, "height": 8}],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 4]}],
            "categories": [{"id": place, "name": name} for place, name in enumerate(names)],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(value))
        splits[split] = CocoFiles(images=split, annotations=f"{split}.json")
    notes = survey("mine", CocoSource(format="coco", root=tmp_path, splits=splits), lambda said: None).notes
    assert [said for said in notes if "different" in said] == [
        "splits train and test of mine have different classes: the names are the same in another order, 'a' stands in "
        "train where 'b' stands in test; give each class the same number in both (a job that learns from one and is "
        "judged on the other is refused)"
    ]


def test_classes_that_differ_in_their_unicode_form_alone_are_told_apart(tmp_path: Path) -> None:
    entry = tree(tmp_path / "data", {"train": ["a", NFC], "test": ["a", NFD]})
    with pytest.raises(DataError, match=r"'caf\\xe9' of train and 'cafe\\u0301' of test look alike .* rename one$"):
        run(tmp_path / "run", entry)
    both = tree(tmp_path / "both", {"train": [NFC, NFD], "test": [NFC, NFD]})
    assert run(tmp_path / "run2", both)["data"]["classes"] == 2
    assert any("classes 'cafe\\u0301' and 'caf\\xe9' look alike" in said for said in warnings(tmp_path / "run2"))


def test_classes_of_one_set_that_differ_in_case_alone_are_told_by_survey_and_job(tmp_path: Path) -> None:
    entry = tree(tmp_path / "data", {"train": ["Cat", "cat"], "test": ["Cat", "cat"]})
    run(tmp_path / "run", entry)
    source = ImageFolderSource(format="image_folder", root=tmp_path / "data")
    for said in (warnings(tmp_path / "run"), survey("mine", source, lambda said: None).notes):
        assert [one for one in said if one.startswith("data set 'mine': classes 'Cat' and 'cat' differ in small")]


def test_classes_that_differ_in_case_or_blanks_alone_are_told_apart() -> None:
    found = different("mine", ("train", "test"), (["Cat", "dog", "mouse"], ["cat", "dog ", "rat"]))
    alone = "differ in small and large letters, blanks, hyphens or underscores alone: rename one"
    assert found == (
        "splits train and test of mine have different classes: "
        f"'Cat' of train and 'cat' of test {alone}; 'dog' of train and 'dog ' of test {alone}; "
        "train alone has 'mouse'; test alone has 'rat'"
    )
    many = different("mine", ("train", "test"), (tuple("ABCDEFGH"), tuple("abcdefgh")))
    assert many is not None
    assert many.endswith("alone: rename one; and 3 pairs more")


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (
            "ab",
            "ba",
            "the same in another order, 'a' stands in train where 'b' stands in test; give each class the same",
        ),
        ("abcdefgh", "a", "train alone has 'b', 'c', 'd', 'e', 'f' and 2 more"),
        (["a", "b\n[0] ok"], ["a"], "train alone has 'b\\n[0] ok'"),
        (["a", "b\u202e"], ["a"], "train alone has 'b\\u202e'"),
    ],
)
def test_what_differs_is_said(ours: Sequence[str], theirs: Sequence[str], said: str) -> None:
    found = different("mine", ("train", "test"), (ours, theirs))
    assert found is not None
    assert said in found
    assert found.isprintable()
    assert different("mine", ("train", "test"), (ours, tuple(ours))) is None


def test_classes_of_one_set_that_are_one_perhaps_are_told() -> None:
    alone = "differ in small and large letters, blanks, hyphens or underscores alone: they count as"
    assert alike(["Cat", "cat", "dog", "dog ", "CAT", "traffic light", "traffic_light", "-1", "1", "catdog"]) == [
        f"classes 'Cat' and 'cat' and 'CAT' {alone} 3; if they are one, give it one name",
        f"classes 'dog' and 'dog ' {alone} 2; if they are one, give it one name",
        f"classes 'traffic light' and 'traffic_light' {alone} 2; if they are one, give it one name",
    ]
    assert alike(["a", "b", "a", NFC, NFD, NFC.upper()]) == [
        "several classes are called 'a': they count as different ones; rename all but one, or join them",
        f"classes {NFC!a} and {NFD!a} look alike and differ in their Unicode form alone: they count as 2; if they are "
        "one, give it one name",
        f"classes {NFC!a} and {NFC.upper()!a} {alone} 2; if they are one, give it one name",
    ]
    letters = alike("abcdefghABCDEFGH")
    assert (len(letters), letters[5].startswith("of 3 classes more names differ in small")) == (6, True)
    assert alike([]) == alike(["a", "b"]) == []


def of(labels: Sequence[int], classes: str) -> ArrayDataSet:
    return ArrayDataSet(np.zeros((len(labels), 2, 2, 3), np.uint8), np.array(labels, np.int64), tuple(classes))


def test_a_class_whose_images_are_in_one_split_alone_or_in_none_is_named() -> None:
    images = of([0, 1, 1], "abcd"), of([0, 2], "abcd")
    assert uneven(("train", "val"), images) == [
        "of 'b' only split train has any, and val none",
        "of 'c' only split val has any, and train none",
        "of 'd' neither split train nor val has any",
    ]
    assert uneven(("train", "val"), (of([0, 1], "ab"), of([1, 0], "ab"))) == []
    assert uneven(("train", "val"), (of([0, 1, 2], "aaa"), of([2, 1, 0], "aaa"))) == [
        "several classes are called 'a': they count as different ones; rename all but one, or join them"
    ]


def test_a_classification_of_one_class_is_told_of(tmp_path: Path) -> None:
    entry = tree(tmp_path / "data", {"train": ["images/a", "images/b"], "test": ["images/a", "images/b"]})
    run(tmp_path / "knn", entry)
    assert [said for said in warnings(tmp_path / "knn") if "one class" in said] == [
        "data set 'mine': there is one class alone, 'images', so that every score is 100 and says nothing; if its "
        "folder holds those of the classes, name it in `splits` of datasets.yaml"
    ]


def test_classes_of_which_a_limit_leaves_nothing_are_named_and_counted(tmp_path: Path) -> None:
    entry = tree(tmp_path / "data", {split: list("abcdefgh") for split in ("train", "test")})
    run(tmp_path / "knn", entry, data={"name": "mine", "limit": 3})
    assert [said for said in warnings(tmp_path / "knn") if "limit" in said] == [
        "data set 'mine': data.limit leaves 5 of 8 classes of split train without any: 'd', 'e', 'f', 'g', 'h'; "
        "nothing is learned of them, so raise it or leave it out"
    ]


def test_classes_of_which_a_list_names_no_image_are_named_and_counted(tmp_path: Path) -> None:
    entry = tree(tmp_path / "data", {split: ["a", "b", "c"] for split in ("train", "test")})
    (tmp_path / "few.txt").write_text("".join(f"b/{number}.png\n" for number in range(4)))
    (tmp_path / "all.txt").write_text("".join(f"{of}/{number}.png\n" for of in "abc" for number in range(3)))
    entry["lists"] = {"few": str(tmp_path / "few.txt"), "all": str(tmp_path / "all.txt")}
    for name in ("few", "all"):
        run(tmp_path / name, entry, "semi_supervised", labels={"list": name}, batch_size=4)
    assert [said for said in warnings(tmp_path / "few") if "names no image" in said] == [
        "the list 'few' names no image of 2 of 3 classes: 'a', 'c'; nothing is learned of them, so complete it if that "
        "is not meant"
    ]
    assert not [said for said in warnings(tmp_path / "all") if "names no image" in said]


@pytest.mark.parametrize(
    ("kind", "changes", "where"),
    [
        ("knn", {}, ("features train", "features test")),
        ("linear", {"protocol": "cached-features"}, ("features train", "features test")),
        ("linear", {"batch_size": 4}, ("training", "testing")),
        ("semi_supervised", {"batch_size": 4, "labels": {"percent": 50}}, ("training", "testing")),
    ],
)
def test_a_class_none_of_whose_images_can_be_read_is_named(
    tmp_path: Path, kind: str, changes: dict[str, Any], where: tuple[str, str]
) -> None:
    entry = tree(tmp_path / "data", {split: ["a", "b", "c"] for split in ("train", "test")})
    for broken in [*(tmp_path / "data").rglob("b/*.png"), tmp_path / "data/train/c/1.png"]:
        broken.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    run(tmp_path / "run", entry, kind, **changes)
    assert [said for said in warnings(tmp_path / "run") if "no image of" in said] == [
        f"no image of class 'b' can be read ({phase}): nothing is learned of or asked about it" for phase in where
    ]


def test_a_class_that_is_read_late_or_in_the_end_of_an_epoch_is_not_taken_for_lost(tmp_path: Path) -> None:
    """Of 24 images 16 are trained on, and of each class one can be read."""
    entry = tree(tmp_path / "data", {split: list("abcdef") for split in ("train", "test")})
    for split, places in (("train", (0, 1, 2)), ("test", (0,))):
        for name in "abcdef":
            for place in places:
                (tmp_path / f"data/{split}/{name}/{place}.png").write_bytes(b"")
    run(tmp_path / "run", entry, "linear", batch_size=16)
    assert not [said for said in warnings(tmp_path / "run") if "no image of" in said]


def of_numbers(root: Path) -> dict[str, Any]:
    """Lists of four classes, eight images of each in each split, whose numbers begin at 1."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        lines = []
        for place in range(32):
            path = f"{split}/{place}.png"
            Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(root / path)
            lines.append(f"{path} {1 + place // 8}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return {"format": "file_list", "root": str(root), "splits": {"train": "train.txt", "test": "test.txt"}}


def test_numbers_from_one_make_no_class_of_which_nothing_is(tmp_path: Path) -> None:
    entry = of_numbers(tmp_path / "data")
    result = run(tmp_path / "knn", entry)
    assert (result["data"]["classes"], set(result["scores"])) == (4, {"top1"})
    assert [one for one in warnings(tmp_path / "knn") if "class 0" in one] == [
        "data set 'mine': in its lists no image is of class 0, which is not counted: 4 classes have images; do the "
        "numbers count from 1?"
    ]
    result = run(tmp_path / "semi", entry, "semi_supervised", labels={"percent": 50})
    assert result["labels"]["images"] == 16
    assert not [one for one in warnings(tmp_path / "semi") if "have fewer" in one]
