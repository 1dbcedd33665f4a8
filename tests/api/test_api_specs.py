"""What bad input gets: every fault at once, with its pointer, and nothing half made."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_kit import KNN, PRETRAIN, faults_of
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.database.tables import Experiment, IdempotencyKey, Job
from service.ledger.states import JobState

JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def nothing_is_half_made(session: Session) -> Any:
    """Whatever a test sends, each job has its event and each experiment its jobs."""
    yield
    session.rollback()
    assert session.scalar(select(func.count()).where(Job.event_seq == 0).select_from(Job)) == 0
    empty = select(Experiment.name).where(~select(Job.id).where(Job.experiment_id == Experiment.id).exists())
    assert session.scalars(empty).all() == []


def test_all_faults_come_at_once(api: httpx.Client) -> None:
    bad = {
        **PRETRAIN,
        "bach_size": 7,
        "epochs": 0,
        "views": {"size": "large"},
        "objective": {"lambda": -1},
        "run": {"labels": {"bad key!": "x"}},
    }
    response = api.post("/jobs", json=bad)
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/invalid-spec"
    faults = faults_of(response)
    assert "did you mean 'batch_size'?" in faults["/bach_size"]
    assert {"/epochs", "/views/size", "/objective/lambda"} < set(faults)


@pytest.mark.parametrize(
    ("change", "pointer", "said"),
    [
        ({"batch_size": 101, "resources": {"slots": 2}}, "", "divide"),
        ({"data": {"name": "digits", "split": "dev"}}, "/data/split", "train (1,437 images)"),
        ({"data": {"name": "digits", "limit": 2000}}, "/data/limit", "1,437"),
        ({"batch_size": 1500, "data": {"name": "digits"}}, "/batch_size", "at most 1,437"),
        ({"run": {"after": ["nobody"]}}, "/run/after/0", "no job 'nobody'"),
        ({"run": {"after": [str(uuid.UUID(int=7))]}}, "/run/after/0", "no job"),
        ({"backbone": {"name": "resnet19"}}, "/backbone/name", "resnet18"),
        ({"kind": "pretrian"}, "/kind", "did you mean 'pretrain'?"),
    ],
)
def test_what_can_be_known_is_answered_at_submit(
    api: httpx.Client, change: dict[str, Any], pointer: str, said: str
) -> None:
    for query in ("", "?validate_only=true"):
        response = api.post(f"/jobs{query}", json={**PRETRAIN, **change})
        assert response.status_code == 422, response.text
        [(where, message)] = faults_of(response).items()
        assert where.startswith(pointer)
        assert said in message
    assert api.get("/jobs").json()["items"] == []


def test_without_nodes_a_large_job_or_a_foreign_data_set_is_accepted(api: httpx.Client) -> None:
    foreign = {"resources": {"slots": 64}, "data": {"name": "imagenet"}, "batch_size": 128}
    assert api.post("/jobs", json={**PRETRAIN, **foreign}).status_code == 201


def test_nodes_bound_slots_and_data_sets(api: httpx.Client, add_node: Callable[..., None]) -> None:
    add_node("small", 1)
    add_node("large", 4, data_sets={"flowers": {"splits": {"train": 500}, "classes": 5}})
    foreign = {"resources": {"slots": 5}, "data": {"name": "flower"}}
    response = api.post("/jobs", json={**PRETRAIN, **foreign})
    faults = faults_of(response)
    assert "large, has 4" in faults["/resources/slots"]
    assert "did you mean 'flowers'?" in faults["/data/name"]
    assert api.post("/jobs", json={**PRETRAIN, "data": "flowers", "resources": {"slots": 4}}).status_code == 201
    evaluation = api.post("/jobs", json={**KNN, "data": {"name": "flowers"}, "backbone_from": {"pixels": True}})
    assert "no split 'test'" in faults_of(evaluation)["/test_split"]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_source_that_failed_is_refused(api: httpx.Client, session: Session, state: str) -> None:
    source = api.post("/jobs", json={**PRETRAIN, "name": "source"}).json()
    session.execute(update(Job).where(Job.id == uuid.UUID(source["id"])).values(state=state))
    session.commit()
    response = api.post("/jobs", json={**KNN, "backbone_from": {"job": "source"}, "run": {"after": ["source"]}})
    faults = faults_of(response)
    assert set(faults) == {"/backbone_from/job", "/run/after/0"}
    assert JobState(state).words in faults["/backbone_from/job"]


def test_a_source_must_be_a_pretraining_with_that_checkpoint(api: httpx.Client, session: Session) -> None:
    api.post("/jobs", json={**KNN, "name": "floor", "backbone_from": {"pixels": True}})
    wrong = api.post("/jobs", json={**KNN, "backbone_from": {"job": "floor"}})
    assert "name a pretrain job" in faults_of(wrong)["/backbone_from/job"]
    source = api.post("/jobs", json={**PRETRAIN, "name": "source"}).json()
    session.execute(update(Job).where(Job.id == uuid.UUID(source["id"])).values(state="succeeded"))
    session.commit()
    early = api.post("/jobs", json={**KNN, "backbone_from": {"job": "source", "select": "step 40"}})
    assert "no checkpoint of step 40" in faults_of(early)["/backbone_from/select"]
    typo = api.post("/jobs", json={**KNN, "backbone_from": {"job": "sorce"}})
    assert "did you mean 'source'?" in faults_of(typo)["/backbone_from/job"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"kind": "pretrain",\n "data": ', 400, "line 2, column 10"),
        (b"", 400, "line 1, column 1"),
        (b"\xff\xfe", 400, "UTF-8"),
        (b'{"seed": NaN}', 400, "NaN"),
        (b'{"kind": "knn", "kind": "pretrain"}', 400, "twice"),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400, "digits"),
        (b"[" * 100_000, 400, "nested"),
        (b"[" * 100 + b"]" * 100, 422, "nested"),
        (b'{"name": "\\u0000"}', 422, "NUL"),
        (b'{"name": "\\ud800"}', 422, "surrogate"),
        (b'{"\\u0000": 1}', 422, "NUL"),
        (b'{"seed": 1e999}', 422, "too large"),
        (b"7", 422, "not a number"),
        (b"null", 422, "not null"),
        (b"{}", 422, "kind is missing"),
        (b'{"kind": "pretrain", "data": "digits", "seed": 123456789012345678901234567890}', 422, "/seed"),
    ],
)
def test_bodies_that_are_no_specs(api: httpx.Client, body: bytes, status: int, said: str) -> None:
    for path in ("/jobs", "/jobs?validate_only=true", "/experiments"):
        response = api.post(path, content=body, headers=JSON)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.status_code == status, response.text
        if path != "/experiments":
            assert said in response.json()["detail"]


def test_content_type_and_size(api: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = api.post("/jobs", content=b"{}", headers={"Content-Type": kind})
        assert response.status_code == 415
        assert response.json()["type"] == "/problems/unsupported-media-type"
    assert api.post("/jobs", content=b" " * 1_000_001, headers=JSON).status_code == 413


def test_the_plan_says_what_a_submit_would_do_and_makes_nothing(
    api: httpx.Client, session: Session, add_node: Callable[..., None]
) -> None:
    add_node("host", 2)
    add_node("tight", 2, memory_bytes=10**6)
    add_node("single", 1)
    api.post("/jobs", json=PRETRAIN)
    answer = api.post("/jobs?validate_only=true", json={**PRETRAIN, "resources": {"slots": 2}, "name": "planned"})
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert plan["parameters"]["total"] > plan["parameters"]["projector"] > 0
    assert (plan["images"], plan["steps_per_epoch"], plan["steps"]) == (4000, 40, 80)
    assert (plan["state"], plan["place"], plan["slots"]) == ("queued", 2, 2)
    memory = plan["memory"]
    assert memory["total"] == sum(v for k, v in memory.items() if k not in ("total", "formula"))
    fits = {fit["node"]: fit for fit in plan["fits"]}
    assert fits["host"]["fits"]
    assert "GB a slot" in fits["tight"]["why"]
    assert "needs 2 slots, has 1" in fits["single"]["why"]
    assert session.scalar(select(func.count()).select_from(Job)) == 1
    made = api.post("/jobs", json={**PRETRAIN, "resources": {"slots": 2}, "name": "planned"}).json()
    assert (made["spec"], made["spec_digest"]) == (plan["spec"], plan["spec_digest"])


def test_the_plan_of_an_evaluation_knows_the_backbone_of_its_source(api: httpx.Client) -> None:
    api.post("/jobs", json={**PRETRAIN, "name": "source"})
    plan = api.post("/jobs?validate_only=true", json={**KNN, "backbone_from": {"job": "source"}}).json()
    assert plan["state"] == "waiting"
    assert plan["parameters"]["projector"] == 0
    assert plan["parameters"]["total"] > 0
    assert plan["memory"]["gradients"] == 0
    pixels = api.post("/jobs?validate_only=true", json={**KNN, "backbone_from": {"pixels": True}}).json()
    assert pixels["parameters"] is None
    assert api.get("/experiments").json()["items"][0]["states"] == {"queued": 1}


def test_a_plan_counts_a_backbone_of_others_as_far_as_the_spec_says_what_it_is(api: httpx.Client) -> None:
    def parameters(**source: object) -> object:
        answer = api.post("/jobs?validate_only=true", json={**KNN, **source})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["memory"] is None) == (answer.json()["parameters"] is None)
        return answer.json()["parameters"] and answer.json()["parameters"]["backbone"]

    resnet18 = 11_176_512
    assert parameters(backbone_from={"torchvision": "ResNet18_Weights.IMAGENET1K_V1"}) == resnet18
    assert parameters(backbone_from={"file": "w.pth"}, backbone={"name": "resnet18"}) == resnet18
    assert parameters(backbone_from={"file": "published"}) is None
    refused = api.post("/jobs", json={**KNN, "backbone_from": {"torchvision": "ResNet17_Weights.IMAGENET1K_V1"}})
    assert "did you mean those of resnet1" in faults_of(refused)["/backbone_from/torchvision"]


def test_a_source_whose_own_backbone_is_not_installed_here_can_be_judged(api: httpx.Client, session: Session) -> None:
    made = api.post("/jobs", json={**PRETRAIN, "name": "source"}).json()
    gone = {**made["spec"], "backbone": {**made["spec"]["backbone"], "name": "gone"}}
    session.execute(update(Job).where(Job.id == uuid.UUID(made["id"])).values(spec=gone))
    session.commit()
    judging = {**KNN, "backbone_from": {"job": "source"}}
    plan = api.post("/jobs?validate_only=true", json=judging)
    assert (plan.status_code, plan.json()["parameters"]) == (200, None)
    assert api.post("/jobs", json=judging).status_code == 201


def test_images_that_the_source_s_backbone_does_not_take_are_refused(api: httpx.Client) -> None:
    source = {**PRETRAIN, "views": {"size": 224}, "backbone": {"name": "vit_b_16"}}
    judging = {**KNN, "backbone_from": {"job": "source"}}
    assert api.post("/jobs", json={**source, "name": "source"}).status_code == 201
    assert "vit_b_16 takes images of 224 px" in faults_of(api.post("/jobs", json=judging))["/images/size"]
    together = api.post("/experiments", json={"name": "e", "jobs": {"source": source, "judge": judging}})
    assert list(faults_of(together)) == ["/jobs/judge/images/size"]
    fitting = {**judging, "images": {"size": 224}}
    assert api.post("/jobs", json=fitting).status_code == 201


def test_the_sizes_of_a_backbone_of_one_s_own_are_not_known(
    api: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {**PRETRAIN, "backbone": {"name": "my_net"}}
    assert "has to be installed here" in faults_of(api.post("/jobs", json=spec))["/backbone/name"]
    info = tmp_path / "own_nets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-nets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[barlow_lab.backbones]\nmy_net = a_module_that_is_not_here:Net\n")
    monkeypatch.syspath_prepend(tmp_path)
    plan = api.post("/jobs?validate_only=true", json=spec).json()
    assert (plan["parameters"], plan["memory"], plan["steps"]) == (None, None, 80)


def test_a_plan_in_a_new_experiment_makes_no_experiment(api: httpx.Client) -> None:
    assert api.post("/jobs?validate_only=true&experiment=new", json=PRETRAIN).status_code == 200
    assert api.get("/experiments/new").status_code == 404


def test_an_idempotency_key_makes_one_job(api: httpx.Client, session: Session) -> None:
    headers = {"Idempotency-Key": "5b0c"}
    first = api.post("/jobs", json=PRETRAIN, headers=headers)
    again = api.post("/jobs", json=dict(reversed(PRETRAIN.items())), headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    for changed in (api.post("/jobs", json={**PRETRAIN, "seed": 1}, headers=headers),
                    api.post("/jobs?experiment=other", json=PRETRAIN, headers=headers)):  # fmt: skip
        assert changed.status_code == 422
        assert changed.json()["type"] == "/problems/idempotency-key-reused"
    assert session.scalar(select(func.count()).select_from(Job)) == 1
    for key in ("", "a b", "é", "x" * 256):
        refused = api.post("/jobs", json=PRETRAIN, headers={"Idempotency-Key": key.encode()})
        assert set(faults_of(refused)) == {"Idempotency-Key"}


def test_a_refused_submit_leaves_its_key_free(api: httpx.Client, session: Session) -> None:
    headers = {"Idempotency-Key": "k"}
    assert api.post("/jobs", json={**PRETRAIN, "epochs": 0}, headers=headers).status_code == 422
    assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 0
    assert api.post("/jobs", json=PRETRAIN, headers=headers).status_code == 201


def test_a_key_in_use_is_a_conflict(api: httpx.Client, session: Session) -> None:
    from service.api.idempotency import replayed

    assert replayed(session, owner="anonymous", route="POST /jobs", key="busy", request={}) is None
    response = api.post("/jobs", json=PRETRAIN, headers={"Idempotency-Key": "busy"})
    assert response.status_code == 409
    assert response.json()["type"] == "/problems/submit-in-progress"
    session.rollback()
    assert api.post("/jobs", json=PRETRAIN, headers={"Idempotency-Key": "busy"}).status_code == 201


def test_what_a_faulty_spec_names_is_looked_up_too(api: httpx.Client, add_node: Callable[..., None]) -> None:
    add_node("small", 1)
    bad = {
        **PRETRAIN,
        "bach_size": 7,
        "batch_size": 101,
        "projector": {"widths": [64, 0]},
        "data": {"name": "digitz"},
        "resources": {"slots": 2},
        "run": {"after": ["nobody"]},
    }
    expected = {"/bach_size", "/batch_size", "/projector/widths/1", "/data/name", "/resources/slots", "/run/after/0"}
    assert set(faults_of(api.post("/jobs", json=bad))) == expected
    del bad["bach_size"], bad["projector"]
    found = {"/batch_size", "/data/name", "/resources/slots", "/run/after/0"}
    assert set(faults_of(api.post("/jobs", json=bad))) == found
    default = {"kind": "pretrain", "data": {"name": "digitz"}, "epochs": 0, "resources": {"slots": 3}}
    assert set(faults_of(api.post("/jobs", json=default))) == {"/epochs", "/batch_size", "/data/name"}
    jobs = {"first": {**bad, "name": "other"}, "secnd": {**KNN, "backbone_from": {"job": "frist"}, "k": 0}}
    response = api.post("/experiments", json={"name": "no name", "jobs": jobs})
    assert set(faults_of(response)) == {
        "/name",
        "/jobs/first/name",
        *(f"/jobs/first{pointer}" for pointer in found),
        "/jobs/secnd/k",
        "/jobs/secnd/backbone_from/job",
    }


@pytest.mark.parametrize("query", ["validateonly=true", "validate_only=true&experiement=x", "job=7"])
def test_a_mistyped_parameter_submits_nothing(api: httpx.Client, query: str) -> None:
    response = api.post(f"/jobs?{query}", json=PRETRAIN)
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/invalid-parameters"
    assert "validate_only" in response.text or "did you mean 'experiment'?" in response.text
    assert api.get("/jobs").json()["items"] == []
    assert "known: page_size, page_token" in api.get("/experiments?x=1").text
    assert "there are none here" in api.get(f"/jobs/{uuid.UUID(int=7)}?x=1").text
