"""An evaluation without an image size gets that of its source job or its data set, once, when it is submitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_kit import PRETRAIN

from barlow_lab.specs import digest, parse_spec
from barlow_lab.specs.catalogue import DataSetEntry
from barlow_lab.specs.data_sets import parse_source, unchecked

UNTRAINED: dict[str, Any] = {"backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}


def evaluation(data: str, source: dict[str, Any] = UNTRAINED, **fields: Any) -> dict[str, Any]:
    return {"kind": "knn", "data": {"name": data}, **source, **fields}


def size_of(job: dict[str, Any]) -> int:
    """As the job's stored spec says; its digest is of that spec."""
    assert job["spec_digest"] == digest(parse_spec(job["spec"]))
    size: int = job["spec"]["images"]["size"]
    return size


def submitted(api: httpx.Client, spec: dict[str, Any]) -> dict[str, Any]:
    answer = api.post("/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


@pytest.mark.parametrize(("data", "size"), [("digits", 8), ("textures", 32)])
def test_of_a_built_in_data_set(api: httpx.Client, data: str, size: int) -> None:
    left_out, said = submitted(api, evaluation(data)), submitted(api, evaluation(data, images={"size": size}))
    assert size_of(left_out) == size_of(said) == size
    assert left_out["spec_digest"] == said["spec_digest"]
    usual = submitted(api, evaluation(data, images={"size": 224}))
    assert size_of(usual) == 224
    assert usual["spec_digest"] != said["spec_digest"]
    plan = api.post("/jobs", params={"validate_only": True}, json=evaluation(data)).json()
    large = api.post("/jobs", params={"validate_only": True}, json=evaluation(data, images={"size": 224})).json()
    assert size_of(plan) == size
    assert plan["memory"]["activations"] < large["memory"]["activations"] / 40


def test_of_the_source_job_by_its_id_by_its_name_and_beside_it(api: httpx.Client) -> None:
    pretrain = {**PRETRAIN, "views": {"preset": "small_images", "size": 40}, "name": "source"}
    source = submitted(api, pretrain)
    for name in (source["id"], "source"):
        assert size_of(submitted(api, evaluation("digits", {"backbone_from": {"job": name}}))) == 40
    jobs = {"source": {k: v for k, v in pretrain.items() if k != "name"},
            "knn": evaluation("digits", {"backbone_from": {"job": "source"}}),
            "floor": evaluation("digits")}  # fmt: skip
    made = api.post("/experiments", json={"name": "sizes", "jobs": jobs}).json()
    sizes = {
        job["name"]: size_of(api.get(f"/jobs/{job['id']}").json()) for job in made["jobs"] if job["name"] != "source"
    }
    assert sizes == {"knn": 40, "floor": 8}


def test_a_source_whose_network_takes_one_size_alone(api: httpx.Client) -> None:
    vit = {**PRETRAIN, "views": {"size": 224}, "backbone": {"name": "vit_b_16"}, "name": "vit"}
    submitted(api, vit)
    assert size_of(submitted(api, evaluation("digits", {"backbone_from": {"job": "vit"}}))) == 224
    untrained = {"backbone_from": {"random": 0}, "backbone": {"name": "vit_b_16"}}
    assert size_of(submitted(api, evaluation("digits", untrained))) == 224


def test_of_a_data_set_that_nobody_has_looked_at_yet_the_job_warns(
    api: httpx.Client, add_node: Callable[..., None]
) -> None:
    uncounted = unchecked(parse_source({"format": "image_folder", "root": "/data/photos"}))
    counted = DataSetEntry(splits={"train": 100, "test": 100}, classes=3)
    add_node("host", 1, data_sets={"new": uncounted.model_dump(), "photos": counted.model_dump()})

    def warnings(spec: dict[str, Any]) -> list[str]:
        job = api.get(f"/jobs/{submitted(api, spec)['id']}").json()
        assert size_of(job) == 224
        return [warning["message"] for warning in job["warnings"]]

    said = (
        "images.size was left out and is 224: no node has counted data set 'new' yet, so the size of its images is not "
        "known. If they are smaller, cancel the job and submit it with images.size written out, or when `barlow "
        "datasets` shows the set as counted"
    )
    assert warnings(evaluation("new")) == [said]
    assert warnings(evaluation("new", images={"size": 224})) == []
    assert warnings(evaluation("photos")) == []
    made = api.post("/experiments", json={"name": "several", "jobs": {"knn": evaluation("new")}}).json()
    assert [w["message"] for w in api.get(f"/jobs/{made['jobs'][0]['id']}").json()["warnings"]] == [said]


def test_of_a_data_set_of_the_fleet_as_far_as_it_is_known(api: httpx.Client, add_node: Callable[..., None]) -> None:
    stl10 = unchecked(parse_source({"format": "stl10", "root": "/data/stl10"}))
    photos = DataSetEntry(splits={"train": 100, "test": 100}, classes=3)
    add_node("host", 1, data_sets={"mine": stl10.model_dump(), "photos": photos.model_dump()})
    assert size_of(submitted(api, evaluation("mine"))) == 96
    assert size_of(submitted(api, evaluation("photos"))) == 224
    weights = {"backbone_from": {"torchvision": "ResNet18_Weights.IMAGENET1K_V1"}}
    assert size_of(submitted(api, evaluation("mine", weights))) == 224
