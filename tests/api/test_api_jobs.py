"""Jobs over HTTP: submit, show, list, cancel, compare."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_kit import KNN, PRETRAIN, faults_of
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from barlow_lab.specs.common import NAME_RULE, RULES
from service.api import examples
from service.api.problems import QUERY_RULES
from service.database.tables import Job, Metric, Slot
from service.ledger import attempts
from service.ledger.moves import lock_job


def submit(api: httpx.Client, name: str, **changes: Any) -> dict[str, Any]:
    response = api.post("/jobs", json={**PRETRAIN, "name": name, **changes})
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_job_is_submitted_and_shown(api: httpx.Client) -> None:
    made = api.post("/jobs", json={**PRETRAIN, "name": "first", "run": {"labels": {"who": "me"}}})
    assert made.status_code == 201, made.text
    job = made.json()
    assert job["state"] == "queued"
    assert made.headers["Location"] == job["links"]["self"]
    shown = api.get(f"http://barlow{made.headers['Location']}").json()
    assert shown["name"] == "first"
    assert shown["experiment"] == "default"
    assert shown["labels"] == {"who": "me"}
    assert shown["place"] == 1
    assert shown["spec"]["objective"]["lambda"] == 0.0051
    assert len(shown["spec_digest"]) == 64
    assert shown["recording"] == {"postgres": "pending", "mlflow": "off"}
    events = api.get(f"/jobs/{job['id']}/events").json()["items"]
    assert [(e["seq"], e["kind"], e["actor"]) for e in events] == [(1, "submitted", "anonymous")]


@pytest.mark.parametrize("kind", list(examples.JOBS))
def test_each_documented_example_is_accepted(api: httpx.Client, kind: str) -> None:
    made = api.post("/jobs", json=examples.JOBS[kind]["value"])
    assert made.status_code == 201, made.text
    assert made.json()["kind"] == kind


def test_an_evaluation_waits_for_its_pretraining_by_name_and_by_id(api: httpx.Client) -> None:
    source = submit(api, "source")
    for reference in ("source", source["id"]):
        waiting = api.post("/jobs", json={**KNN, "backbone_from": {"job": reference}}).json()
        assert waiting["state"] == "waiting"
        assert waiting["source_job"] == source["id"]
        assert waiting["reason"]["code"] == "waits_for_job"
        assert "source" in waiting["reason"]["words"]
        assert waiting["place"] is None


def test_names_are_unique_within_an_experiment(api: httpx.Client) -> None:
    submit(api, "twin")
    again = api.post("/jobs", json={**PRETRAIN, "name": "twin"})
    assert again.status_code == 409
    assert "choose another name or experiment" in faults_of(again)["/name"]
    assert api.post("/jobs?experiment=other", json={**PRETRAIN, "name": "twin"}).status_code == 201
    assert len(api.get("/jobs?match=twin").json()["items"]) == 2


def test_lists_are_filtered_and_paged_newest_first(api: httpx.Client) -> None:
    made = [submit(api, f"j{i}", run={"labels": {"parity": "even" if i % 2 == 0 else "odd"}}) for i in range(7)]
    newest_first = [job["id"] for job in reversed(made)]
    seen: list[str] = []
    token = None
    while True:
        params = {"page_size": 3} | ({"page_token": token} if token else {})
        page = api.get("/jobs", params=params).json()
        seen += [job["id"] for job in page["items"]]
        token = page["next_page_token"]
        if token is None:
            break
        submit(api, f"late-{len(seen)}")  # what arrives meanwhile belongs to no page
    assert seen == newest_first

    def names(**params: Any) -> list[str]:
        return [job["name"] for job in api.get("/jobs", params=params).json()["items"]]

    assert names(label="parity=even") == ["j6", "j4", "j2", "j0"]
    assert names(label=["parity=even", "who=me"]) == []
    assert names(match="j3") == ["j3"]
    assert names(match=made[3]["id"][-12:]) == ["j3"]
    assert names(match=made[3]["id"]) == ["j3"]
    assert names(state="running") == []
    assert len(names(state=["running", "queued"], kind="pretrain", experiment="default")) == 9
    assert names(created_after=made[-1]["created_at"], match="j6") == ["j6"]
    assert names(created_before=made[1]["created_at"]) == ["j0"]
    places = {job["name"]: job["place"] for job in api.get("/jobs").json()["items"]}
    assert [places[f"j{i}"] for i in range(7)] == list(range(1, 8))


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("state=sleeping", "state"),
        ("kind=train", "kind"),
        ("label=nothing", "label"),
        ("page_size=0", "page_size"),
        ("page_size=many", "page_size"),
        ("page_token=xx", "page_token"),
        ("page_token=WzFd", "page_token"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-01T00:00:00", "created_after"),
        ("created_before=1767225600", "created_before"),
        ("match=%25", "match"),
    ],
)
def test_bad_parameters_are_named(api: httpx.Client, query: str, parameter: str) -> None:
    response = api.get(f"/jobs?{query}")
    assert response.status_code == 422
    assert set(faults_of(response)) == {parameter}


def test_higher_priority_stands_before_in_the_queue(api: httpx.Client) -> None:
    first = submit(api, "patient")
    second = submit(api, "urgent", run={"priority": 10})
    assert api.get(f"/jobs/{second['id']}").json()["place"] == 1
    assert api.get(f"/jobs/{first['id']}").json()["place"] == 2


def test_nothing_is_missing_of_a_job_that_is_cancelled_before_a_node_has_taken_it(
    api: httpx.Client, session: Session, add_node: Callable[..., None]
) -> None:
    job = submit(api, "placed")
    add_node("host", 1)
    placed = lock_job(session, uuid.UUID(job["id"]))
    assert attempts.place(session, placed, session.scalars(select(Slot)).all(), lease_seconds=60) is not None
    session.commit()
    assert api.get(f"/jobs/{job['id']}").json()["recording"]["postgres"] == "pending"
    api.post(f"/jobs/{job['id']}:cancel")
    ended = api.get(f"/jobs/{job['id']}").json()
    assert (ended["state"], ended["attempts"]) == ("cancelled", 1)
    assert ended["recording"] == {"postgres": "complete", "mlflow": "off"}


def test_cancel_ends_a_queued_job_with_what_waits_for_it(api: httpx.Client) -> None:
    source = submit(api, "source")
    waiting = api.post("/jobs", json={**KNN, "backbone_from": {"job": "source"}}).json()
    cancelled = api.post(f"/jobs/{source['id']}:cancel")
    assert cancelled.status_code == 202
    assert cancelled.json()["state"] == "cancelled"
    dependant = api.get(f"/jobs/{waiting['id']}").json()
    assert dependant["state"] == "cancelled"
    assert dependant["recording"] == {"postgres": "complete", "mlflow": "off"}  # it has written nothing
    assert dependant["reason"]["code"] == "dependency_failed"
    again = api.post(f"/jobs/{source['id']}:cancel")
    assert again.status_code == 200
    assert again.json()["finished_at"] == cancelled.json()["finished_at"]


@pytest.mark.parametrize("path", ["/jobs/nonsense", f"/jobs/{uuid.UUID(int=0)}", "/jobs/%F0%9F", "/experiments/none"])
def test_what_does_not_exist_is_a_404_problem(api: httpx.Client, path: str) -> None:
    for response in (api.get(path), api.get(f"{path}/metrics"), api.post(f"{path}:cancel")):
        if response.status_code == 405:
            continue
        assert response.status_code == 404, response.text
        assert response.json()["type"] == "/problems/not-found"


def test_compare_shows_differences_metrics_and_results(api: httpx.Client, session: Session) -> None:
    a = submit(api, "a")
    b = submit(api, "b", objective={"lambda": 0.01}, optimizer={"name": "sgd"})
    for job, value in ((a, 3.0), (b, 2.0)):
        for step in (1, 2):
            point = {"key": "loss", "step": step, "value": value / step, "at": func.now(), "attempt": 1}
            session.add(Metric(job_id=uuid.UUID(job["id"]), **point))
    row = session.get(Job, uuid.UUID(b["id"]))
    assert row is not None
    row.result = {"protocol": {"name": "knn"}, "top1": 0.5}
    session.commit()
    answer = api.get("/compare", params={"job": [a["id"], b["id"]]}).json()
    spec = {row["name"]: row["values"] for row in answer["spec"]}
    assert spec["/objective/lambda"] == [0.0051, 0.01]
    assert spec["/optimizer/name"] == ["lars", "sgd"]
    assert "/name" not in spec
    assert "/batch_size" not in spec
    assert answer["metrics"] == [{"name": "loss", "values": [1.5, 1.0]}]
    assert {row["name"]: row["values"] for row in answer["results"]} == {
        "/protocol/name": [None, "knn"],
        "/top1": [None, 0.5],
    }
    assert api.get("/compare", params={"job": [a["id"]]}).status_code == 422
    assert api.get("/compare", params={"job": [a["id"], "nobody"]}).status_code == 404


def test_names_that_are_refused_are_refused_in_their_own_words(api: httpx.Client) -> None:
    refused = api.post("/jobs", params={"experiment": "my experiment"}, json=PRETRAIN)
    assert (refused.status_code, faults_of(refused)) == (422, {"experiment": NAME_RULE})
    unknown = faults_of(api.get("/jobs", params={"match": "my job"}))
    assert unknown["match"].startswith("a job's name is expected, or the beginning or the end of its id")
    labelled = api.post("/jobs", json={**PRETRAIN, "run": {"labels": {"reviewed by": "ana"}}})
    assert faults_of(labelled)["/run/labels/reviewed by"].startswith("the name of a label is expected: ")


def test_every_parameter_that_has_to_have_a_form_is_refused_in_words(api: httpx.Client) -> None:
    paths = api.get("http://barlow/openapi.json").json()["paths"]
    schemas = [
        option
        for methods in paths.values()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
        for option in [parameter["schema"], *parameter["schema"].get("anyOf", [])]
        if parameter["in"] == "query"
    ]
    patterns = {schema["pattern"] for schema in schemas if "pattern" in schema}
    assert len(patterns) > 1
    assert patterns <= RULES.keys() | QUERY_RULES.keys()


def test_a_job_that_runs_is_told_to_stop(
    api: httpx.Client, session: Session, run_job: Callable[[str], uuid.UUID]
) -> None:
    job = submit(api, "runs")
    run_job(job["id"])
    assert api.get(f"/jobs/{job['id']}").json()["state"] == "running"
    [attempt] = api.get(f"/jobs/{job['id']}/attempts").json()["items"]
    assert (attempt["number"], attempt["node"], attempt["state"]) == (1, "host", "starting")
    for _ in range(2):
        answer = api.post(f"/jobs/{job['id']}:cancel")
        assert answer.status_code == 202
        assert answer.json()["state"] == "running"
        assert answer.json()["cancel_requested"] is True
