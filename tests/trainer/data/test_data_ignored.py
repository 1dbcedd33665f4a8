"""Crowds and difficult objects where there are too many of them: told, and named by what nothing is left of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import runs
from coco_trees import instance
from coco_trees import opened as opened_coco
from coco_trees import put as put_coco
from detection_ranks import spec as detection
from drawn_objects import DrawnObjects
from voc_trees import opened as opened_voc
from voc_trees import put as put_voc
from voc_trees import put_list

from barlow_lab.specs import parse_spec
from trainer.data.classes import uneven
from trainer.data.errors import DataError
from trainer.evaluation import run_evaluation
from trainer.evaluation.detection import running

CVAT = "does a tool such as CVAT write that for every mask? Write iscrowd 0 for single objects"


def crowds(folder: Path, marked: Sequence[Sequence[int]]) -> list[str]:
    """What is told of a file whose classes have objects that are crowds or not, by `marked`."""
    objects = [(category, crowd) for category, those in zip((1, 13, 90), marked, strict=True) for crowd in those]
    put_coco(
        folder,
        annotations=[
            instance(number, 7, category, [number / 10, 0, 9, 9], iscrowd=crowd)
            for number, (category, crowd) in enumerate(objects)
        ],
    )
    told: list[str] = []
    opened_coco(folder, warn=told.append)
    return [one for one in told if "crowds" in one]


@pytest.mark.parametrize(
    ("marked", "said"),
    [
        ([[0] * 80, [0] * 5 + [1], [0] * 5], ""),
        ([[0] * 8, [0, 0, 1], [0, 0, 1]], "2 of 14 objects of instances_train2017.json are crowds (iscrowd 1), which"),
        ([[0] * 60, [1, 1], [0, 1, 1]], "crowds (iscrowd 1), among them all of 'stop sign' and most of 'toothbrush', "),
        ([[1], [1], [1]], "all 3 objects of instances_train2017.json are crowds (iscrowd 1), which are neither"),
    ],
)  # fmt: skip
def test_more_crowds_than_are_usual_or_most_of_a_class_are_told(
    tmp_path: Path, marked: Sequence[Sequence[int]], said: str
) -> None:
    told = crowds(tmp_path, marked)
    assert len(told) == bool(said)
    assert all(said in one and one.endswith(CVAT) for one in told)


@pytest.mark.parametrize(("difficult", "told"), [(4, False), (5, True), (10, True)])
def test_more_difficult_objects_than_are_usual_are_told(tmp_path: Path, difficult: int, told: bool) -> None:
    box = (2, 3, 4, 5)
    put_voc(tmp_path, "1", [("cat", box, int(number < difficult)) for number in range(10)])
    put_list(tmp_path, "trainval", ["1"])
    said: list[str] = []
    opened_voc(tmp_path, splits={"train": ["VOC2007/trainval"]}, warn=said.append)
    assert (
        any("objects of split 'train' (VOC2007/trainval) are difficult (<difficult> 1)" in one for one in said) == told
    )


def test_classes_of_which_all_objects_are_ignored_are_named_of_each_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(*, difficult: bool) -> list[str]:
        images = DrawnObjects(4, ignored=True, ignored_are_difficult=difficult), DrawnObjects(4, ignored=True)
        for each, second in zip(images, (-1, 0), strict=True):
            presence = each.presence()
            presence[:] = [1, second]
            presence[0, 1] = -1
            monkeypatch.setattr(each, "presence", lambda presence=presence: presence)
        return uneven(("train", "test"), images)

    begun = "of 'disc' split {} has only objects that are {} or have no area: {}"
    assert of(difficult=False) == [
        begun.format("train", "crowds (iscrowd 1)", "nothing is learned of them"),
        begun.format("test", "crowds (iscrowd 1)", "no score counts them"),
    ]
    learned = "a detector learns of the difficult ones, a support vector machine of none"
    assert of(difficult=True)[0] == begun.format("train", "difficult (<difficult> 1)", learned)


class Crowds(DrawnObjects):
    """Of every image both objects are crowds."""

    def __init__(self, count: int, seed: int = 0) -> None:
        super().__init__(count, seed=seed)
        for _, there in self._rows:
            there.ignored[:] = True


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (
            "train",
            "no image of the training split has an object to learn from: all 8 objects of the training split are",
        ),
        ("test", "split 'test' has no object to find: all 8 objects of it are crowds"),
    ],
)
def test_a_split_of_crowds_alone_is_refused_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, said: str
) -> None:
    splits = {"train": DrawnObjects(4), "test": DrawnObjects(4, seed=1), split: Crowds(4)}
    monkeypatch.setattr(running, "open_annotated", lambda name, split, **more: splits[split])
    with pytest.raises(DataError) as refused:
        run_evaluation(detection(), runs.context(tmp_path))
    assert said in str(refused.value)
    assert CVAT in str(refused.value)


def test_machines_without_a_positive_say_that_objects_are_crowds(tmp_path: Path) -> None:
    root = put_coco(tmp_path / "data", annotations=[instance(1, 7, 1, [0, 0, 9, 9], iscrowd=1)])
    files = {"images": "train2017", "annotations": "annotations/instances_train2017.json"}
    entry: dict[str, Any] = {"format": "coco", "root": str(root), "splits": {"train": files, "test": files}}
    context = runs.context(tmp_path / "run")
    context.inputs["data"] = {"mine": entry}
    given = {"kind": "svm", "data": {"name": "mine"}, "images": {"size": 8, "resize": 8}, "costs": [1.0]}
    with pytest.raises(DataError) as refused:
        run_evaluation(parse_spec({**given, "backbone_from": {"pixels": True}}), context)
    assert "all 1 objects of split 'train' are crowds (iscrowd 1)" in str(refused.value)
