"""Evaluations of every kind at submit: what they take, their steps, what never fits."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from api_kit import PRETRAIN, faults_of

from barlow_lab.specs import parse_spec

IMAGES = {"data": {"name": "textures"}, "images": {"size": 32, "resize": 32}}
UNTRAINED = {"backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}
SEMI = {"kind": "semi_supervised", **IMAGES, **UNTRAINED, "labels": {"percent": 10}, "batch_size": 64}
LINEAR = {"kind": "linear", **IMAGES, **UNTRAINED}
DETECTION: dict[str, Any] = {
    "kind": "detection",
    "data": {"name": "scenes"},
    "backbone_from": {"random": 0},
    "backbone": {"name": "resnet18", "stem": "small"},
}


def refused(api: httpx.Client, spec: dict[str, Any]) -> dict[str, str]:
    answer = api.post("/jobs?validate_only=true", json=spec)
    assert answer.status_code == 422, answer.text
    return faults_of(answer)


def planned(api: httpx.Client, spec: dict[str, Any]) -> Any:
    answer = api.post("/jobs?validate_only=true", json=spec)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("spec", "pointer", "said"),
    [
        ({**LINEAR, "batch_size": 4001}, "/batch_size", "use at most 4,000"),
        ({**LINEAR, "data": {"name": "textures", "limit": 5000}}, "/data/limit", "more than there are"),
        ({**SEMI, "labels": {"percent": 1}}, "/batch_size", "1 % of the labels are 40 images"),
        ({**SEMI, "labels": {"percent": 0.001}}, "/batch_size", "use at most 8"),
        ({**SEMI, "resources": {"slots": 3}}, "/batch_size", "3 ranks do not divide it; use 63 or 66"),
        ({**LINEAR, "resources": {"slots": 3}}, "/batch_size", "3 ranks do not divide it"),
        ({**SEMI, "backbone_from": {"pixels": True}, "backbone": None}, "/backbone_from/pixels", "use random"),
        ({**DETECTION, "batch_size": 100_000}, "/batch_size", "no step at all"),
        ({**DETECTION, "backbone": {"name": "tiny"}}, "/backbone/name", "use one of resnet101"),
        (
            {**DETECTION, "backbone": None, "backbone_from": {"torchvision": "VGG16_Weights.IMAGENET1K_V1"}},
            "/backbone_from/torchvision",
            "vgg16 has no such layers",
        ),
    ],
)
def test_what_never_fits_is_refused_at_its_field(
    api: httpx.Client, spec: dict[str, Any], pointer: str, said: str
) -> None:
    found = refused(api, spec)
    assert list(found) == [pointer], found
    assert said in found[pointer]


def test_cached_features_take_any_batch_and_any_number_of_ranks(api: httpx.Client) -> None:
    cached = {**LINEAR, "protocol": "cached-features", "batch_size": 5000, "resources": {"slots": 3}}
    plan = planned(api, cached)
    assert (plan["steps_per_epoch"], plan["steps"]) == (None, None)
    assert plan["memory"]["features"] == 4000 * 128 * 4


def test_a_detector_is_refused_the_backbone_of_a_pretraining_that_is_no_resnet(api: httpx.Client) -> None:
    judging = {key: value for key, value in DETECTION.items() if key != "backbone"} | {
        "backbone_from": {"job": "source"}
    }
    assert api.post("/jobs", json={**PRETRAIN, "name": "source"}).status_code == 201
    assert "tiny has no such layers" in refused(api, judging)["/backbone_from/job"]
    together = api.post("/experiments", json={"name": "e", "jobs": {"source": PRETRAIN, "judge": judging}})
    assert list(faults_of(together)) == ["/jobs/judge/backbone_from/job"]
    resnet = {**PRETRAIN, "backbone": {"name": "resnet18", "stem": "small"}}
    answer = api.post("/experiments", json={"name": "f", "jobs": {"source": resnet, "judge": judging}})
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("kind", ["linear", "semi_supervised", "svm", "knn", "detection"])
def test_a_checkpoint_or_a_backbone_of_an_evaluation_is_none(api: httpx.Client, kind: str) -> None:
    specs = {"linear": LINEAR, "semi_supervised": SEMI, "detection": DETECTION}
    judged = specs.get(kind, {"kind": kind, **IMAGES, **UNTRAINED})
    assert api.post("/jobs", json={**judged, "name": "judged"}).status_code == 201
    for select in ("last", "step 3"):
        again = {"kind": "knn", **IMAGES, "backbone_from": {"job": "judged", "select": select}}
        assert f"is a {kind} job and makes no backbone" in refused(api, again)["/backbone_from/job"]


def test_the_plan_knows_the_steps_of_what_trains(api: httpx.Client) -> None:
    linear = planned(api, {**LINEAR, "data": {"name": "textures", "limit": 1000}})
    assert (linear["steps_per_epoch"], linear["steps"]) == (3, 300)
    semi = planned(api, SEMI)  # 50 of 500 images of each of 8 classes
    assert (semi["steps_per_epoch"], semi["steps"]) == (6, 120)
    assert parse_spec({**SEMI, "labels": {"list": "ours"}}).planned_steps(4000, 8) == (None, None)
    assert parse_spec({**SEMI, "labels": {"percent": 100}}).planned_steps(4000, None) == (62, 1240)
    assert parse_spec(SEMI).planned_steps(4000, None) == (None, None)
    assert parse_spec(DETECTION).planned_steps(None, None) == (None, 24_000)
    assert parse_spec(DETECTION).planned_steps(2000, None) == (125, 24_000)
    assert parse_spec({"kind": "svm", **IMAGES, **UNTRAINED}).planned_steps(4000, 8) == (None, None)


def test_every_kind_says_whether_it_goes_on_from_a_checkpoint(api: httpx.Client) -> None:
    specs = {
        "linear": LINEAR,
        "cached": {**LINEAR, "protocol": "cached-features"},
        "semi": SEMI,
        "knn": {"kind": "knn", **IMAGES, **UNTRAINED},
        "svm": {"kind": "svm", **IMAGES, **UNTRAINED},
        "detection": DETECTION,
        "pretrain": PRETRAIN,
    }
    made = {name: api.post("/jobs", json={**spec, "name": name}) for name, spec in specs.items()}
    assert {name: answer.json()["goes_on"] for name, answer in made.items()} == {
        "linear": True, "cached": False, "semi": True, "knn": False, "svm": False, "detection": True, "pretrain": True,
    }, json.dumps({name: answer.text for name, answer in made.items()})  # fmt: skip
