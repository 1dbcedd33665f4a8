"""Kinds that a test adds are known by what they say: a pretraining from a job's backbone, an evaluation of one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import later_kind
import pytest
from api_kit import KNN, PRETRAIN, faults_of

from service.api import examples


@pytest.fixture(autouse=True)
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    later_kind.add(monkeypatch)


def continued(**source: Any) -> dict[str, Any]:
    return {**PRETRAIN, "kind": "continued", "backbone_from": source}


def test_it_waits_for_the_job_that_it_goes_on_from_and_is_judged_itself(api: httpx.Client) -> None:
    source = api.post("/jobs", json={**PRETRAIN, "name": "source"}).json()
    made = api.post("/jobs", json={**continued(job="source"), "name": "more"})
    assert made.status_code == 201, made.text
    assert (made.json()["state"], source["name"] in made.json()["reason"]["words"]) == ("waiting", True)
    judging = {key: value for key, value in KNN.items() if key != "images"} | {"backbone_from": {"job": "more"}}
    judged = api.post("/jobs", json=judging)
    assert judged.status_code == 201, judged.text
    assert judged.json()["spec"]["images"]["size"] == PRETRAIN["views"]["size"], (
        "that of the views that it is trained on"
    )
    together = {"source": PRETRAIN, "more": continued(job="source"), "judge": {**judging}}
    assert api.post("/experiments", json={"name": "e", "jobs": together}).status_code == 201


def test_what_it_cannot_go_on_from_is_refused(api: httpx.Client, add_node: Callable[..., None]) -> None:
    add_node("gpu-1", 1)
    assert "no job 'nothing'" in faults_of(api.post("/jobs", json=continued(job="nothing")))["/backbone_from/job"]
    api.post("/jobs", json={**KNN, "backbone_from": {"pixels": True}, "name": "judged"})
    refused = api.post("/jobs", json=continued(job="judged"))
    assert "is a knn job and makes no backbone; name a pretrain job" in faults_of(refused)["/backbone_from/job"]


def test_an_evaluation_of_one_file_is_planned_submitted_and_shown(api: httpx.Client) -> None:
    judging = {**KNN, "kind": "nearest_mean", "backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}
    plan = api.post("/jobs?validate_only=true", json=judging).json()
    assert (plan["kind"], plan["steps"], plan["memory"]["features"]) == ("nearest_mean", None, 4000 * 128 * 4)
    made = api.post("/jobs", json=judging).json()
    assert (made["kind"], made["goes_on"], made["state"]) == ("nearest_mean", False, "queued")
    assert [job["id"] for job in api.get("/jobs?kind=nearest_mean").json()["items"]] == [made["id"]]
    wrong = {**judging, "data": "scenes", "k": 3}
    assert faults_of(api.post("/jobs", json=wrong))["/k"] == "unknown field"
    del wrong["k"]
    assert "nearest_mean learns from one class an image" in faults_of(api.post("/jobs", json=wrong))["/data/name"]


def test_an_example_takes_what_its_kind_says(api: httpx.Client) -> None:
    shown = examples._experiment()
    assert shown["jobs"]["continued"]["backbone_from"] == shown["jobs"]["nearest-mean"]["backbone_from"]
    assert "backbone" in shown["jobs"]["continued"], "it trains one, of the network that it says"
    assert "backbone" not in shown["jobs"]["knn"]
    made = api.post("/experiments", json=shown)
    assert made.status_code == 201, made.text
