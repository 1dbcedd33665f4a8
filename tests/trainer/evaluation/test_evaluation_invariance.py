"""The evaluation of invariance as a job: its result, its trajectories, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations_of_digits import context_in
from labelled_runs import StopAfter

from barlow_lab.journal import read_events
from barlow_lab.specs import InvarianceSpec, SpecError, parse_spec
from barlow_lab.specs.kinds.evaluation import EvaluationImages
from barlow_lab.specs.kinds.invariance import TransformationRanges
from trainer.data.loading.evaluation import centre_crop
from trainer.data.loading.trajectories import trajectories
from trainer.evaluation import run_evaluation
from trainer.evaluation.invariance import running
from trainer.evaluation.invariance.running import chosen_images
from trainer.failures import BadSpec


def spec_of(**fields: Any) -> InvarianceSpec:
    spec = parse_spec(
        {"kind": "invariance", "data": {"name": "digits", "limit": 203}, "images": {"size": 8, "resize": 8},
         "backbone_from": {"random": 3}, "backbone": {"name": "tiny"}, "batch_size": 32, "images_per_class": 3,
         "steps": 3, **fields}
    )  # fmt: skip
    assert isinstance(spec, InvarianceSpec)
    return spec


@pytest.mark.parametrize("procedure", ["formula", "demystifying"])
def test_a_job_tells_each_transformation_beside_its_shuffled_score(tmp_path: Path, procedure: str) -> None:
    result = run_evaluation(spec_of(procedure=procedure), context_in(tmp_path))
    assert result is not None
    names = ("crop", "colour", "blur", "rotation", "scale")
    wanted = {"ris", "shuffled", *(f"{score}_{name}" for score in ("ris", "shuffled") for name in names)}
    assert (result["headline"], set(result["scores"]), result["data"]["test_images"]) == ("ris", wanted, 30)
    assert result["protocol"] == ("invariance/1" if procedure == "formula" else "invariance-demystifying/1")
    assert all(0 < score["last"] <= 100 for score in result["scores"].values())
    # Digits of 8 px are hardly blurred by a fiftieth of a side: what fires goes on firing.
    assert result["scores"]["ris_blur"]["last"] > result["scores"]["shuffled_blur"]["last"] + 10
    events = list(read_events(tmp_path / "journal.jsonl"))
    (told,) = (event.data["values"] for event in events if event.kind == "metrics")
    assert told == {f"invariance_{name}": score["last"] for name, score in result["scores"].items()}
    (picture,) = (event for event in events if event.kind == "image")
    assert (picture.data["key"], (tmp_path / picture.data["file"]).exists()) == ("invariance", True)
    assert len(result["ris_of_classes"]) == 10


def test_trajectories_are_grids_that_hold_the_image_itself() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    images = EvaluationImages(size=64, resize=64)
    along = {name: of(image) for name, of in trajectories(TransformationRanges(), images, 5).items()}
    again = {name: of(image) for name, of in trajectories(TransformationRanges(), images, 5).items()}
    shown = centre_crop(image, images).transpose(1, 2, 0)
    for name, step in (("blur", 0), ("rotation", 2), ("scale", 0)):
        np.testing.assert_array_equal(np.asarray(along[name][step]), shown, err_msg=name)
    for name, found in along.items():
        assert [one.size for one in found] == [(64, 64)] * 5
        assert len({np.asarray(one).tobytes() for one in found}) == 5
        assert all(np.array_equal(a, b) for a, b in zip(found, again[name], strict=True))


def test_images_are_chosen_by_class_and_by_the_seed() -> None:
    labels = np.array([0] * 20 + [1] * 2 + [3] * 9)
    chosen = chosen_images(labels, 4, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [4, 2, 0, 4]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert chosen.tolist() != chosen_images(labels, 4, seed=2).tolist()


def test_what_cannot_be_is_refused_where_it_stands() -> None:
    for fields, said in (
        ({"top_units": 129}, "129 best of 128 units"),
        ({"steps": 2}, "steps"),
        ({"transformations": dict.fromkeys(("crop", "colour", "blur", "rotation", "scale"))}, "at least one"),
        ({"transformations": {"colour": dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0)}}, "itself"),
        ({"transformations": {"rotation": {"degrees": 180}}}, "degrees"),
    ):
        with pytest.raises(SpecError, match=said):
            spec_of(**fields)
    spec = spec_of()
    assert [fault.pointer for fault in spec.faults_of_size(100, 1, "100 images")] == ["/data/name"]
    assert [fault.pointer for fault in spec.faults_of_size(9, 10, "9 images")] == ["/data/limit"]
    assert spec.faults_of_size(10, 10, "10 images") == []
    ours = spec_of(backbone_from={"job": "p"}, backbone=None, top_units=600)
    assert [fault.pointer for fault in ours.faults_of_source("resnet18")] == ["/top_units"]
    assert ours.faults_of_source("resnet50") == []


def test_features_that_become_infinite_along_a_trajectory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They fire nowhere, and would lower the score without a word."""

    class Broken(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.full((len(pixels), 128), math.nan)

    thresholds = running.thresholds_of

    def then_broken(spec: Any, *rest: Any) -> Any:
        found = thresholds(spec, *rest)
        monkeypatch.setattr(type(backbone[0]), "forward", Broken.forward)
        return found

    backbone: list[torch.nn.Module] = []
    opened = running.open_backbone

    def noted(*asked: Any) -> Any:
        found = opened(*asked)
        backbone.append(found.module)
        return found

    monkeypatch.setattr(running, "open_backbone", noted)
    monkeypatch.setattr(running, "thresholds_of", then_broken)
    with pytest.raises(BadSpec, match=r"not finite \(trajectories crop\)"):
        run_evaluation(spec_of(), context_in(tmp_path))


def test_a_stop_is_heard_between_two_units(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    context.stop = StopAfter(9)  # type: ignore[assignment]
    assert run_evaluation(spec_of(), context) is None
