"""Lists of labelled images that were made from the root of a data set, or of more of it than a job takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from barlow_lab.specs.data_sets import parse_source
from barlow_lab.specs.kinds.semi_supervised import LabelsSpec
from trainer.data.errors import DataError
from trainer.data.registry import open_data_set
from trainer.evaluation.label_lists import choose_labels


def tree(root: Path, *folders: str, images: int = 3) -> Path:
    """So many images of the same names in each folder."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (4, 4)).save(root / folder / f"{number}.png")
    return root


def chosen(root: Path, lines: str, limit: int | None = None, **entry: Any) -> list[str]:
    """Names of the images of split train that a list names."""
    (root / "few.txt").write_text(lines)
    lists = {"few": str(root / "few.txt")}
    source = parse_source({"format": "image_folder", "root": str(root), "lists": lists} | entry)
    data = open_data_set("mine", "train", source=source, limit=limit)

    def silent(message: str) -> None:
        assert "names no image of" in message

    labels = choose_labels(LabelsSpec(list="few"), "mine", data, source, split="train", warn=silent)
    return [data.name(index) for index in labels.indices.tolist()]


NAMED: Mapping[str, Any] = {"splits": {"train": "train", "test": "val"}}
DEEP: Mapping[str, Any] = {"splits": {"train": "train/images", "test": "val/images"}}


@pytest.mark.parametrize(
    ("folders", "entry", "line", "said"),
    [
        (["train/a", "test/a"], {}, "test/a/0.png", "of split 'test', and labels are taken from split 'train'"),
        (["train/a", "test/a"], {}, "./data/mine/test/a/0.png a", "of split 'test'"),
        (["train/a", "test/a"], {}, "train/../test/a/0.png", "of split 'test'"),
        (["train/a", "test/a"], {}, "test/a/7.png", "not in the data set"),
        (["train/a", "dev/a"], {}, "/home/me/DEV/a/0.png", "of split 'dev'"),
        (["train/a", "extra/a"], {}, "extra/a/0.png", "of split 'extra'"),
        (["train/a", "val/a"], NAMED, "val/a/0.png", "of split 'test'"),
        (["train/a", "val/a"], NAMED, "test/a/0.png", "of split 'test'"),
        (["train/images/a", "val/images/a"], DEEP, "val/images/a/0.png", "of split 'test'"),
        (["train/a"], {}, "Validation/a/0.png", "by its folder 'Validation' of a test"),
        (["train/a/sub", "test/a"], {}, "test/a/0.png", "of split 'test'"),  # class and file name
        (["train/a", "raw/a"], {"splits": {"train": "train"}}, "raw/a/0.png", "the path of a file that split 'train'"),
    ],
)
def test_a_line_of_another_split_names_no_image_of_this_one(
    tmp_path: Path, folders: list[str], entry: Mapping[str, Any], line: str, said: str
) -> None:
    root = tree(tmp_path, *folders)
    with pytest.raises(DataError) as refused:
        chosen(root, line, **entry)
    assert f"few.txt: {line}: {said}" in str(refused.value)
    assert "(1 of 1 lines; the data set's own names are such as a/" in str(refused.value)


def test_a_line_below_the_root_or_behind_another_split_s_link_names_no_image(tmp_path: Path) -> None:
    root = tree(tmp_path / "mine", "train/a")
    tree(tmp_path / "elsewhere", "a")
    (root / "test").symlink_to("../elsewhere")
    for line in (f"{root}/test/a/0.png", f"{tmp_path}/elsewhere/a/0.png"):
        with pytest.raises(DataError, match="of split 'test'"):
            chosen(root, line)
    assert chosen(root, f"{root}/train/a/0.png") == ["a/0.png"]


def test_the_same_holds_of_lists_and_records(tmp_path: Path) -> None:
    root = tree(tmp_path, "a", "more/a")
    (root / "train.txt").write_text("a/0.png 0\na/1.png 0\n")
    (root / "more.txt").write_text("more/a/0.png 0\n")
    entry = {"format": "file_list", "splits": {"train": "train.txt", "other": "more.txt"}}
    with pytest.raises(DataError, match=r"more/a/0\.png 0: the path of a file that split 'train' does not have"):
        chosen(root, "more/a/0.png 0", **entry)
    with pytest.raises(DataError, match="of split 'other'"):
        chosen(root, "other/a/0.png", **entry)
    assert chosen(root, "a/1.png 0\nelsewhere/a/0.png", **entry) == ["a/0.png", "a/1.png"]


@pytest.mark.parametrize(
    ("folders", "entry", "line"),
    [
        (["train/a", "test/a"], {}, "train/a/0.png"),
        (["train/a", "test/a"], {}, "/home/test/mine/train/a/0.png"),
        (["train/a", "test/a"], {}, "../b/../train/a/0.png"),
        (["train/a", "test/a"], {}, "images/a/0.png"),
        (
            ["2007/images/a", "2012/images/a"],
            {"splits": {"train": "2007/images", "test": "2012/images"}},
            "images/a/0.png",
        ),
        (["val/a", "rest/a"], {"splits": {"train": "val", "test": "rest"}}, "val/a/0.png"),
    ],
)
def test_other_folders_before_an_image_are_passed_over(
    tmp_path: Path, folders: list[str], entry: Mapping[str, Any], line: str
) -> None:
    assert chosen(tree(tmp_path, *folders), line, **entry) == ["a/0.png"]


def test_a_path_that_goes_up_is_the_one_that_it_leads_to(tmp_path: Path) -> None:
    assert chosen(tree(tmp_path, "train/a", "train/b"), "a/../b/0.png\nb/./sub/../1.png") == ["b/0.png", "b/1.png"]


def test_an_image_beyond_the_limit_is_said_to_be_that(tmp_path: Path) -> None:
    root = tree(tmp_path, "train/a", "train/b")
    with pytest.raises(DataError) as refused:
        chosen(root, "a/0.png\nb/2.png\n", limit=3)
    assert str(refused.value) == (
        "few.txt: b/2.png: beyond data.limit, which leaves 3 of 6 images; raise it, or leave it out (1 of 2 lines; the "
        "data set's own names are such as a/0.png)"
    )
    with pytest.raises(DataError, match=r"1\.png: the name of several images"):
        chosen(root, "1.png", limit=3)  # of which one is beyond it
    assert chosen(root, "a/0.png\n", limit=3) == ["a/0.png"]
