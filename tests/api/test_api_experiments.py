"""Experiments: all jobs or none, in the order in which they wait for each other."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_kit import KNN, PRETRAIN, faults_of
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.api import examples
from service.database.tables import Experiment


def test_names_within_an_experiment_are_waited_for(api: httpx.Client) -> None:
    body = {
        "name": "pipeline",
        "jobs": {
            "second": {**KNN, "backbone_from": {"job": "pretrain"}},
            "third": {
                **KNN,
                "backbone_from": {"random": 0},
                "backbone": {"name": "tiny"},
                "run": {"after": ["second"]},
            },
            "pretrain": PRETRAIN,
        },
    }
    made = api.post("/experiments", json=body)
    assert made.status_code == 201, made.text
    experiment = api.get(f"http://barlow{made.headers['Location']}").json()
    assert experiment == made.json() == api.get("/experiments/pipeline").json()
    assert experiment["states"] == {"queued": 1, "waiting": 2}
    jobs = {job["name"]: api.get(f"/jobs/{job['id']}").json() for job in experiment["jobs"]}
    assert jobs["second"]["source_job"] == jobs["pretrain"]["id"]
    assert jobs["second"]["spec"]["name"] == "second"
    assert jobs["third"]["after"] == [jobs["second"]["id"]]
    assert jobs["pretrain"]["state"] == "queued"


def test_the_documented_example_is_accepted(api: httpx.Client) -> None:
    assert api.post("/experiments", json=examples.EXPERIMENT).status_code == 201


def test_faults_of_all_jobs_come_at_once_and_nothing_is_made(api: httpx.Client) -> None:
    body = {
        "name": "broken",
        "jobs": {
            "pretrain": {**PRETRAIN, "epochs": 0},
            "knn": {**KNN, "backbone_from": {"job": "pretrian"}, "data": {"name": "digits", "split": "dev"}},
            "other": {**KNN, "name": "else", "backbone_from": {"pixels": True}},
            "bad name!": PRETRAIN,
            "fine": PRETRAIN,
        },
    }
    faults = faults_of(api.post("/experiments", json=body))
    assert set(faults) == {
        "/jobs/pretrain/epochs",
        "/jobs/knn/backbone_from/job",
        "/jobs/knn/data/split",
        "/jobs/other/name",
        "/jobs/bad name!",
    }
    assert "did you mean 'pretrain'?" in faults["/jobs/knn/backbone_from/job"]
    assert api.get("/experiments").json()["items"] == []
    assert api.get("/jobs").json()["items"] == []


@pytest.mark.parametrize(
    "circle", [{"a": ["b"], "b": ["c"], "c": ["a"]}, {"a": ["a"]}, {"a": ["b"], "b": ["a"], "free": []}]
)
def test_circles_are_refused(api: httpx.Client, circle: dict[str, list[str]]) -> None:
    jobs = {name: {**PRETRAIN, "run": {"after": after}} for name, after in circle.items()}
    response = api.post("/experiments", json={"name": "circle", "jobs": jobs})
    [(pointer, said)] = faults_of(response).items()
    assert pointer.startswith("/jobs/")
    assert pointer.endswith("/run/after/0")
    assert "waits for a" in said
    assert "circle" in said


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ([], {""}),
        ({}, {"/name", "/jobs"}),
        ({"name": "x", "jobs": {}}, {"/jobs"}),
        ({"name": "x", "jobs": [PRETRAIN]}, {"/jobs"}),
        ({"name": 7, "jobs": {"a": PRETRAIN}, "labels": {}}, {"/name", "/labels"}),
        ({"name": "x", "jobs": {"a": None}}, {"/jobs/a"}),
        ({"name": "x", "jobs": {"a/b": PRETRAIN}}, {"/jobs/a~1b"}),
    ],
)
def test_bodies_that_are_no_experiments(api: httpx.Client, body: Any, pointers: set[str]) -> None:
    response = api.post("/experiments", json=body)
    assert response.status_code == 422
    assert set(faults_of(response)) == pointers


def test_an_experiment_name_is_taken_once(api: httpx.Client) -> None:
    body = {"name": "once", "jobs": {"a": PRETRAIN}}
    headers = {"Idempotency-Key": "e1"}
    first = api.post("/experiments", json=body, headers=headers)
    assert first.status_code == 201
    replay = api.post("/experiments", json=body, headers=headers)
    assert replay.json()["id"] == first.json()["id"]
    assert replay.headers["Idempotency-Replayed"] == "true"
    again = api.post("/experiments", json={"name": "once", "jobs": {"b": PRETRAIN}})
    assert again.status_code == 409
    assert "take another name" in faults_of(again)["/name"]
    assert api.post("/jobs?experiment=once", json={**PRETRAIN, "name": "b"}).status_code == 201


def test_experiments_are_paged(api: httpx.Client) -> None:
    for i in range(3):
        api.post(f"/jobs?experiment=e{i}", json=PRETRAIN)
    first = api.get("/experiments?page_size=2").json()
    second = api.get("/experiments", params={"page_size": 2, "page_token": first["next_page_token"]}).json()
    assert [e["name"] for e in first["items"] + second["items"]] == ["e2", "e1", "e0"]
    assert second["next_page_token"] is None


def test_a_grid_becomes_jobs_each_with_its_own_evaluation(api: httpx.Client) -> None:
    body = {
        "name": "sweep",
        "seeds": 2,
        "grid": {"objective.lambda": [0.01, 0.02]},
        "jobs": {"knn": {**KNN, "backbone_from": {"job": "pretrain"}}, "pretrain": PRETRAIN},
    }
    made = api.post("/experiments", json=body, headers={"Idempotency-Key": "once"})
    assert made.status_code == 201, made.text
    again = api.post("/experiments", json=body, headers={"Idempotency-Key": "once"})
    assert again.json() == made.json()
    jobs = {job["name"]: api.get(f"/jobs/{job['id']}").json() for job in made.json()["jobs"]}
    assert len(jobs) == 8
    source = jobs["pretrain-lambda_0.02-seed_1"]
    assert jobs["knn-lambda_0.02-seed_1"]["source_job"] == source["id"]
    assert (source["spec"]["objective"]["lambda"], source["spec"]["seed"]) == (0.02, 1)
    found = api.get("/jobs", params={"label": "lambda=0.02", "kind": "knn"}).json()["items"]
    assert {job["name"] for job in found} == {"knn-lambda_0.02-seed_0", "knn-lambda_0.02-seed_1"}


def test_faults_of_a_grid_are_told_once_and_it_is_counted_before_it_is_made(api: httpx.Client) -> None:
    jobs = {
        "pretrain": {**PRETRAIN, "data": {"name": "digits", "split": "dev"}},
        "knn": {**KNN, "backbone_from": {"job": "pretrian"}},
    }
    answer = api.post(
        "/experiments", json={"name": "sweep", "jobs": jobs, "grid": {"batch_size": [64, 1], "epochs": [1, 2]}}
    )
    said = faults_of(answer)
    assert set(said) == {"/jobs/pretrain/data/split", "/jobs/knn/backbone_from/job", "/grid/batch_size/1"}
    jobs = {"pretrain": PRETRAIN, "knn": {**KNN, "backbone_from": {"job": "pretrain"}}}
    grid = {field: list(range(1, 1001)) for field in ("epochs", "batch_size", "max_steps")}
    said = faults_of(api.post("/experiments", json={"name": "sweep", "jobs": jobs, "grid": grid}))
    assert "it becomes 2,000,000,000 jobs" in said["/jobs"]
    assert "one body brings up to 500 (BARLOW_MAX_EXPERIMENT_JOBS" in said["/jobs"]
    assert api.get("/experiments").json()["items"] == []


def test_an_experiment_says_whether_its_pretrainings_vary(api: httpx.Client, session: Session) -> None:
    judged = {**KNN, "backbone_from": {"job": "pretrain"}}
    pixels = {**KNN, "backbone_from": {"pixels": True}}
    bodies: dict[str, dict[str, Any]] = {
        "seeds": {"seeds": 2, "jobs": {"pretrain": PRETRAIN, "knn": judged}},
        "of-a-job": {"jobs": {"pretrain": {**PRETRAIN, "grid": {"objective.lambda": [0.01, 0.02]}}}},
        "judged-twice": {"jobs": {"pretrain": PRETRAIN, "knn": {**judged, "grid": {"k": [20, 200]}}}},
        "one-seed": {"seeds": 1, "jobs": {"pretrain": PRETRAIN}},
        "untrained": {"seeds": 2, "jobs": {"knn": pixels}},
        "two-by-hand": {"jobs": {"one": PRETRAIN, "two": PRETRAIN}},
    }
    for name, body in bodies.items():
        assert api.post("/experiments", json={"name": name, **body}).status_code == 201
    found = dict(session.execute(select(Experiment.name, Experiment.varies)).all())
    assert {name for name in bodies if found[name]} == {"seeds", "of-a-job", "untrained"}
