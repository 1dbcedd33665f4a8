"""Images with more objects than a test finds, and splits in which many have none: told with numbers."""

import json
from pathlib import Path

import coco_trees
import pytest
import runs
from coco_trees import instance
from detection_ranks import spec as detection
from drawn_objects import DrawnObjects

from barlow_lab.specs.data_sets import CocoFiles, CocoSource
from trainer.data.object_numbers import MOST_FOUND, many_without, more_than_found
from trainer.evaluation import run_evaluation
from trainer.evaluation.detection import running
from trainer.evaluation.detection.scoring import MOST_DETECTIONS
from trainer.models.detectors import regions
from trainer.survey import survey


def opened(root: Path, numbers, **more):
    """A file of COCO whose images have so many objects, each at a place of its own."""
    annotations = [
        instance(100 * MOST_FOUND * image + n, image, 1, [n % 20, n // 20, 3, 3 + image / 100], **more)
        for image, count in zip((42, 7, 100), numbers, strict=True)
        for n in range(count)
    ]
    return coco_trees.opened(coco_trees.put(root, annotations=annotations))


def test_detectors_and_the_rule_find_as_many_as_is_said():
    assert regions.MOST_DETECTIONS == MOST_DETECTIONS[-1] == MOST_FOUND


def test_more_objects_than_are_found_are_told_with_the_bound_of_recall(tmp_path):
    assert more_than_found(opened(tmp_path, (100, 1, 1))) is None
    said = more_than_found(opened(tmp_path, (150, 120, 10)))
    assert said is not None
    assert said.startswith("2 of 3 images have more than 100 objects, of which a test finds 100 at most")
    assert "recall cannot pass 75.0 % (210 of 280 objects)" in said


def test_crowds_are_not_asked_for(tmp_path):
    assert more_than_found(opened(tmp_path, (150, 1, 1), iscrowd=1)) is None


@pytest.mark.parametrize(("without", "told"), [((), False), ((1,), False), ((1, 2), True), (tuple(range(19)), True)])
def test_many_images_without_objects_are_told_from_a_tenth_on(without, told):
    said = many_without(DrawnObjects(20, without=without))
    assert (said is not None) == told
    assert said is None or said.startswith(f"{len(without)} of 20 images have no object: a detector learns nothing of")


def test_of_none_with_objects_readers_tell():
    assert many_without(DrawnObjects(3, without=(0, 1, 2))) is None


def test_a_survey_tells_of_both(tmp_path):
    opened(tmp_path, (150, 0, 1))
    files = CocoFiles(images="train2017", annotations="annotations/instances_train2017.json")
    entry = survey("mine", CocoSource(format="coco", root=tmp_path, splits={"train": files}), lambda said: None)
    told = json.dumps(entry.notes)
    assert "1 of 3 images have more than 100 objects" in told
    assert "1 of 3 images have no object" in told


def test_a_job_tells_before_it_trains(tmp_path, monkeypatch):
    data = {"train": DrawnObjects(10, without=(1, 2)), "test": DrawnObjects(5, without=(0,), seed=1)}
    monkeypatch.setattr(running, "open_annotated", lambda name, split, **more: data[split])
    result = run_evaluation(detection(masks=False, steps=1, warmup_steps=0), runs.context(tmp_path))
    warned = [event.data["message"] for event in runs.events(tmp_path, kind="warning")]
    of_train, of_test = (one for one in warned if "no object" in one)
    assert of_train.startswith("split 'train': 2 of 10 images have no object")
    assert of_test.startswith("split 'test': 1 of 5 images have no object")
    assert (result["data"]["train_images_without_objects"], result["data"]["test_images_without_objects"]) == (2, 1)
