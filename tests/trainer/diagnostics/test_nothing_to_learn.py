"""A run that learns nothing says so in words, and goes on."""

import labelled_runs
import numpy as np
import pytest
import runs
import torch
from PIL import Image

from barlow_lab.specs import parse_spec
from trainer.evaluation import run_evaluation
from trainer.evaluation.extremes import Extremes
from trainer.pretraining import pretrain


def tree(folder, level, count=48):
    """Images of 8 px in three classes, black or of noise up to `level`."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(count):
            path = folder / split / f"class-{number % 3}" / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, level + 1, (8, 8, 3), np.uint8)).save(path)
    return folder


def told(folder):
    """What was said of learning nothing, by what is amiss."""
    warnings = [event.data for event in runs.events(folder, kind="warning")]
    return {one["nothing_learned"]: one["message"] for one in warnings if "nothing_learned" in one}


@pytest.fixture(scope="module")
def black(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("black"), 0)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("noise"), 255)


def pretrained(folder, data):
    spec = runs.spec(data={"name": "own"}, views={"preset": "barlow_twins", "size": 12}, epochs=2, batch_size=16)
    context = runs.context(folder)
    context.inputs["data"] = {"own": {"format": "image_folder", "root": str(data)}}
    return pretrain(spec, context)


def test_a_pretraining_on_black_images_says_so_once_and_at_the_end_and_no_other(tmp_path, black, noise):
    end = pretrained(tmp_path / "black", black)
    assert end.outcome == "ok"
    said = told(tmp_path / "black")
    assert "step 0: 16 of the batch's 16 images are of one colour: there is nothing to learn" in said["images"]
    assert said.keys() == {"images"}
    (collapsed,) = [one.data for one in runs.events(tmp_path / "black", kind="warning") if "collapse" in one.data]
    assert collapsed["collapse"] == "complete"
    assert "step 0: the features of all 16 images are the same (view a): complete collapse" in collapsed["message"]
    assert "trained for 6 steps; at the end 16 of the batch's 16 images are of one colour" in end.message
    assert end.result["health"][0] in end.message
    warned = runs.events(tmp_path / "black", kind="warning")
    assert sum({"nothing_learned", "collapse"} & one.data.keys() != set() for one in warned) == 2
    end = pretrained(tmp_path / "noise", noise)
    assert end.message == "trained for 6 steps"
    assert told(tmp_path / "noise") == {}


KNN = {"kind": "knn", "k": 5}
SVM = {"kind": "svm", "folds": 2, "costs": [1.0]}
CACHED = {"kind": "linear", "protocol": "cached-features", "epochs": 1}


@pytest.mark.parametrize("kind", [KNN, SVM, CACHED], ids=["knn", "svm", "cached-features"])
def test_an_evaluation_of_frozen_features_says_that_they_are_all_the_same(tmp_path, black, noise, kind):
    shared = {"data": {"name": "own"}, "images": {"size": 8, "resize": 8}, "backbone_from": {"random": 0},
              "backbone": {"name": "tiny"}}  # fmt: skip
    spec = parse_spec({**shared, **kind})
    assert run_evaluation(spec, labelled_runs.context(tmp_path / "black", black)) is not None
    assert "so the score is that of a guess" in told(tmp_path / "black")["features"]
    assert run_evaluation(spec, labelled_runs.context(tmp_path / "noise", noise)) is not None
    assert told(tmp_path / "noise") == {}


@pytest.mark.parametrize("kind", labelled_runs.KINDS)
def test_a_classifier_that_gives_all_images_the_same_scores_says_so_once(tmp_path, black, noise, kind):
    assert labelled_runs.run(tmp_path / "black", black, kind, epochs=2) is not None
    assert "all 48 test images get the same scores" in told(tmp_path / "black")["features"]
    assert sum("nothing_learned" in one.data for one in runs.events(tmp_path / "black", kind="warning")) == 1
    assert labelled_runs.run(tmp_path / "noise", noise, kind, epochs=2) is not None
    assert told(tmp_path / "noise") == {}


def test_rows_are_the_same_up_to_rounding_and_a_single_one_proves_nothing():
    rows = torch.rand(20, 7, generator=torch.Generator().manual_seed(0)) + 0.5
    for values, same in (
        (rows, False), (rows[:1], False), (rows[:0], False), (rows[:1].repeat(9, 1), True), (torch.zeros(9, 7), True),
        (rows[:1] * (1 + 1e-7 * torch.randn(9, 7)), True), (rows[:1] * (1 + 1e-3 * torch.randn(9, 7)), False),
    ):  # fmt: skip
        extremes = Extremes()
        for part in values.split(4):
            extremes.take(part)
        assert extremes.all_the_same(torch.device("cpu")) is same
