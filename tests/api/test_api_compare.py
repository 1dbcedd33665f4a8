"""Evaluations side by side: what was measured of whose backbone, beside what was published."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_kit import PRETRAIN, faults_of
from sqlalchemy.orm import Session

from service.api.routers import jobs as routers_of_jobs
from service.database.tables import Job
from service.settings import Settings

IMAGES = {"size": 32, "resize": 32}
TEXTURES = {"data": {"name": "textures"}, "images": IMAGES}
TRAINED, UNTRAINED = (
    {"backbone_from": {"job": "pretrain"}},
    {"backbone_from": {"random": 0}, "backbone": {"name": "tiny"}},
)
PUBLISHED = {"source": "A table of somebody", "scores": {"top1": 73.2}}


def experiment(api: httpx.Client, jobs: dict[str, Any]) -> dict[str, str]:
    """Ids of the jobs of an experiment `row`, by name."""
    answer = api.post("/experiments", json={"name": "row", "jobs": {"pretrain": PRETRAIN, **jobs}})
    assert answer.status_code == 201, answer.text
    return {job["name"]: job["id"] for job in answer.json()["jobs"]}


def succeed(
    session: Session, job_id: str, headline: str, departures: Any = None, **scores: tuple[float, float]
) -> None:
    """The job has ended with these scores (last, best)."""
    job = session.get_one(Job, uuid.UUID(job_id))
    both = {name: {"last": last, "best": best} for name, (last, best) in scores.items()}
    protocol = {"knn": "knn/1", "linear": "linear-document/1", "semi_supervised": "semi-supervised-document/1"}[
        job.kind
    ]
    job.result = {"protocol": protocol, "departures": departures or {}, "headline": headline, "scores": both}
    job.state = "succeeded"
    session.commit()


def test_an_experiment_lines_up_trained_beside_untrained(api: httpx.Client, session: Session) -> None:
    linear = {"kind": "linear", **TEXTURES}
    ids = experiment(
        api,
        {
            "linear": {**linear, **TRAINED, "epochs": 10, "run": {"published": PUBLISHED}},
            "linear-untrained": {**linear, **UNTRAINED, "epochs": 10},
            "knn": {"kind": "knn", **TEXTURES, **TRAINED},
            "late": {"kind": "knn", **TEXTURES, "backbone_from": {"pixels": True}},
        },
    )
    short = {"epochs": {"protocol": 100, "here": 10}}
    succeed(session, ids["linear"], "top1", short, top5=(91.0, 92.0), top1=(70.0, 71.5))
    succeed(session, ids["linear-untrained"], "top1", short, top5=(60.0, 60.0), top1=(30.0, 30.0))
    succeed(session, ids["knn"], "top1", top1=(65.0, 65.0))
    answer = api.get("/compare", params={"experiment": "row"}).json()

    assert answer["backbones"] == ["pretrain", "untrained tiny, seed 0"]
    rows = {(row["protocol"], row["score"]): row for row in answer["scores"]}
    assert list(rows) == [("linear-document/1", "top1"), ("linear-document/1", "top5"), ("knn/1", "top1")]
    top1 = rows["linear-document/1", "top1"]
    assert (top1["headline"], top1["published"], top1["data"], top1["variant"]) == (True, 73.2, "textures", "")
    assert [cell["last"] for cell in top1["cells"]] == [70.0, 30.0]
    assert top1["cells"][0] == {
        "last": 70.0, "best": 71.5, "deviation": None, "n": 1, "published": 73.2, "jobs": [ids["linear"]],
    }  # fmt: skip
    assert top1["cells"][1]["published"] is None, "a number that was published of another backbone"
    assert rows["linear-document/1", "top5"]["published"] is None
    assert rows["knn/1", "top1"]["cells"][1] is None

    told = {one["job"]: one for one in answer["evaluations"]}
    assert set(told) == {ids["linear"], ids["linear-untrained"], ids["knn"]}
    judged = told[ids["linear"]]
    assert (judged["departures"], judged["published_in"], judged["headline"]) == (short, PUBLISHED["source"], "top1")
    assert judged["scores"][0] == {
        "name": "top1", "last": 70.0, "best": 71.5, "published": 73.2, "difference": pytest.approx(-3.2),
    }  # fmt: skip
    assert judged["scores"][1]["published"] is judged["scores"][1]["difference"] is None
    assert {job["name"]: job["state"] for job in answer["jobs"]}["late"] == "queued"
    assert answer["spec"] == answer["metrics"] == answer["results"] == []


def test_seeds_are_one_cell_with_their_spread_and_another_k_is_another_row(api: httpx.Client, session: Session) -> None:
    knn = {"kind": "knn", **TEXTURES, **TRAINED}
    ids = experiment(
        api, {"a": {**knn, "seed": 0}, "b": {**knn, "seed": 1}, "c": {**knn, "k": 200, "temperature": 0.1}}
    )
    for name, value in (("a", 60.0), ("b", 64.0), ("c", 50.0)):
        succeed(session, ids[name], "top1", top1=(value, value + 1))
    first, second = api.get("/compare", params={"experiment": "row"}).json()["scores"]
    (cell,) = first["cells"]
    assert (cell["last"], cell["best"], cell["jobs"]) == (62.0, 63.0, [ids["a"], ids["b"]])
    assert cell["deviation"] == pytest.approx(8**0.5)
    assert (first["variant"], second["variant"]) == ("k 20, temperature 0.07", "k 200, temperature 0.1")
    assert second["cells"][0]["last"] == 50.0


def test_pretrainings_that_differ_in_their_seed_are_one_column(api: httpx.Client, session: Session) -> None:
    jobs = {
        "knn": {"kind": "knn", **TEXTURES, **TRAINED, "seeds": 2},
        "floor": {"kind": "knn", **TEXTURES, **UNTRAINED},
        "pretrain": PRETRAIN,
    }
    body = {"name": "row", "jobs": jobs, "seeds": 2, "grid": {"objective.lambda": [0.01, 0.02]}}
    ids = {job["name"]: job["id"] for job in api.post("/experiments", json=body).json()["jobs"]}
    for pretrained, judged, value in ((0, 0, 60.0), (0, 1, 62.0), (1, 0, 64.0), (1, 1, 66.0)):
        name = f"knn-lambda_0.01-experiment.seed_{pretrained}-seed_{judged}"
        succeed(session, ids[name], "top1", top1=(value, value))
    succeed(session, ids["knn-lambda_0.02-experiment.seed_0-seed_0"], "top1", top1=(50.0, 50.0))
    succeed(session, ids["floor"], "top1", top1=(30.0, 30.0))
    answer = api.get("/compare", params={"experiment": "row"}).json()
    group, alone, floor = answer["backbones"]
    assert (group, alone) == ("pretrain-lambda_0.01, 2 seeds", "pretrain-lambda_0.02-seed_0")
    assert floor.startswith("untrained")
    first, second, third = answer["scores"][0]["cells"]
    assert (first["last"], first["n"], len(first["jobs"])) == (63.0, 2, 4), (
        "a mean of two pretrainings, not of four jobs"
    )
    assert first["deviation"] == pytest.approx(8**0.5)
    assert [(cell["n"], cell["deviation"]) for cell in (second, third)] == [(1, None), (1, None)]
    names = [f"pretrain-lambda_0.01-seed_{seed}" for seed in (0, 1)]
    (told,) = answer["groups"]
    assert (told["backbone"], sorted(told["seeds"])) == (group, [0, 1])
    assert sorted(told["jobs"]) == sorted(ids[name] for name in names)
    by_hand = {"a": {**PRETRAIN, "seed": 3}, "b": {**PRETRAIN, "seed": 4}, "c": {**PRETRAIN, "seed": 4, "epochs": 9}}
    judging = {f"knn-{name}": {"kind": "knn", **TEXTURES, "backbone_from": {"job": name}} for name in by_hand}
    made = api.post("/experiments", json={"name": "hand", "jobs": {**by_hand, **judging}}).json()["jobs"]
    for job in made:
        if job["kind"] == "knn":
            succeed(session, job["id"], "top1", top1=(50.0, 50.0))
    assert api.get("/compare", params={"experiment": "hand"}).json()["backbones"] == ["a, b", "c"]


def test_jobs_of_before_line_up_with_those_of_today(api: httpx.Client, session: Session) -> None:
    """Their stored specs have not the fields that came later."""
    pretrained = {"old": {**PRETRAIN, "seed": 3}, "new": {**PRETRAIN, "seed": 4}}
    judged = {f"knn-{name}": {"kind": "knn", **TEXTURES, "backbone_from": {"job": name}} for name in pretrained}
    floors = {f"floor-{name}": {"kind": "knn", **TEXTURES, **UNTRAINED} for name in pretrained}
    body = {"name": "versions", "jobs": {**pretrained, **judged, **floors}}
    ids = {job["name"]: job["id"] for job in api.post("/experiments", json=body).json()["jobs"]}
    for name in (*judged, *floors):
        succeed(session, ids[name], "top1", top1=(50.0, 50.0))
    for name, part, field in (
        ("old", "objective", "normalisation"),
        ("old", "backbone", "frozen"),
        ("knn-old", "images", "resize_to"),
        ("floor-old", "backbone", "zero_init_residual"),
    ):
        job = session.get_one(Job, uuid.UUID(ids[name]))
        job.spec = {**job.spec, part: {k: v for k, v in job.spec[part].items() if k != field}}
    session.commit()
    answer = api.get("/compare", params={"experiment": "versions"}).json()
    assert answer["backbones"] == ["old, new", "untrained tiny, seed 0"]
    assert [row["variant"] for row in answer["scores"]] == [""]
    both = api.get("/compare", params={"job": [ids["old"], ids["new"]]}).json()
    assert [difference["name"] for difference in both["spec"]] == ["/seed"]


def test_backbones_of_one_name_have_their_own_columns_and_published_numbers(
    api: httpx.Client, session: Session
) -> None:
    ids = {}
    for name, published in (("small", 69.7), ("large", 71.7)):
        told = {"published": {"source": "A table", "scores": {"top1": published}}}
        row = {"kind": "linear", **TEXTURES, **TRAINED, "run": told}
        body = {"name": name, "jobs": {"pretrain": PRETRAIN, "linear": row}}
        answer = api.post("/experiments", json=body).json()
        ids[name] = {job["name"]: job["id"] for job in answer["jobs"]}["linear"]
        succeed(session, ids[name], "top1", top1=(70.0, 70.0))
    answer = api.get("/compare", params={"job": list(ids.values())}).json()
    assert answer["backbones"] == ["small/pretrain", "large/pretrain"]
    (top1,) = answer["scores"]
    cells = [(cell["jobs"], cell["published"]) for cell in top1["cells"]]
    assert cells == [([ids["small"]], 69.7), ([ids["large"]], 71.7)]
    assert top1["published"] is None


def test_untrained_networks_of_one_name_with_other_stems_are_not_one(api: httpx.Client, session: Session) -> None:
    knn = {"kind": "knn", **TEXTURES, "backbone_from": {"random": 0}}
    stems = {stem: {**knn, "backbone": {"name": "resnet18", "stem": stem}} for stem in ("small", "imagenet")}
    ids = experiment(api, stems)
    for stem in stems:
        succeed(session, ids[stem], "top1", top1=(70.0, 70.0))
    answer = api.get("/compare", params={"experiment": "row"}).json()
    (top1,) = answer["scores"]
    assert sorted(cell["jobs"] for cell in top1["cells"]) == sorted([ids[stem]] for stem in stems)
    assert sorted(name.partition(" (")[2].partition(",")[0] for name in answer["backbones"]) == [
        'stem "imagenet"', 'stem "small"',
    ]  # fmt: skip


def test_part_of_the_labels_other_splits_and_a_step_s_checkpoint_are_told_apart(
    api: httpx.Client, session: Session
) -> None:
    semi = {"kind": "semi_supervised", **TEXTURES, **TRAINED, "batch_size": 8}
    knn = {"kind": "knn", **TEXTURES, "backbone_from": {"job": "pretrain", "select": "step 7"}}
    ids = experiment(
        api,
        {
            "one": {**semi, "labels": {"percent": 1}},
            "ten": {**semi, "labels": {"percent": 10, "seed": 3}},
            "other": {**knn, "data": {"name": "textures", "split": "test", "limit": 500}, "test_split": "train"},
        },
    )
    for name in ids.keys() - {"pretrain"}:
        succeed(session, ids[name], "top1", top1=(50.0, 50.0))
    answer = api.get("/compare", params={"experiment": "row"}).json()
    assert [row["data"] for row in answer["scores"]] == [
        "textures, test to train, first 500", "textures, 1 % of labels", "textures, 10 % of labels (seed 3)",
    ]  # fmt: skip
    assert answer["backbones"] == ["pretrain", "pretrain at step 7"]


def test_named_jobs_have_their_evaluations_beside_their_specs(api: httpx.Client, session: Session) -> None:
    knn = {"kind": "knn", **TEXTURES}
    ids = experiment(api, {"a": {**knn, **TRAINED}, "b": {**knn, **UNTRAINED}})
    succeed(session, ids["a"], "top1", top1=(60.0, 60.0))
    answer = api.get("/compare", params={"job": [ids["b"], ids["a"]]}).json()
    assert [one["job"] for one in answer["evaluations"]] == [ids["a"]]
    assert answer["backbones"] == ["pretrain"]
    assert "/backbone_from/job" in {row["name"] for row in answer["spec"]}
    assert {"name": "/scores/top1/last", "values": [None, 60.0]} in answer["results"]


def test_a_result_of_a_former_version_is_no_evaluation_and_breaks_nothing(api: httpx.Client, session: Session) -> None:
    ids = experiment(api, {"old": {"kind": "knn", **TEXTURES, **TRAINED}})
    job = session.get_one(Job, uuid.UUID(ids["old"]))
    job.result = {"protocol": "knn/1", "top1": {"last": 50.0, "best": 50.0}}
    former = {key: value for key, value in job.spec["backbone_from"].items() if key not in ("file", "torchvision")}
    job.spec = {**job.spec, "backbone_from": former}
    session.commit()
    answer = api.get("/compare", params={"experiment": "row"}).json()
    assert answer["evaluations"] == answer["scores"] == []


def test_results_of_two_versions_of_a_protocol_or_of_other_images_never_share_a_row(
    api: httpx.Client, session: Session
) -> None:
    knn = {"kind": "knn", **TEXTURES, **TRAINED}
    ids = experiment(api, {name: {**knn, "seed": seed} for seed, name in enumerate(("old", "new", "other", "same"))})
    seen = {"old": "a", "new": "a", "other": "b", "same": "a"}
    for name, digit in seen.items():
        succeed(session, ids[name], "top1", top1=(60.0, 60.0))
        job = session.get_one(Job, uuid.UUID(ids[name]))
        data = {"train_fingerprint": 64 * "0", "test_fingerprint": 64 * digit}
        job.result = {**job.result, "protocol": "knn/1" if name == "old" else "knn/2", "data": data}
    session.commit()
    rows = api.get("/compare", params={"experiment": "row"}).json()["scores"]
    assert [(row["protocol"], row["variant"], row["cells"][0]["jobs"]) for row in rows] == [
        ("knn/1", "", [ids["old"]]),
        ("knn/2", 'test data "aaaaaaaaaaaa"', [ids["new"], ids["same"]]),
        ("knn/2", 'test data "bbbbbbbbbbbb"', [ids["other"]]),
    ]


def test_what_is_compared_is_either_jobs_or_an_experiment(api: httpx.Client) -> None:
    ids = experiment(api, {"knn": {"kind": "knn", **TEXTURES, **TRAINED}})
    assert "job" in faults_of(api.get("/compare"))
    both = api.get("/compare", params={"job": list(ids.values()), "experiment": "row"})
    assert (both.status_code, list(faults_of(both))) == (422, ["job"])
    assert api.get("/compare", params={"experiment": "nobody's"}).status_code == 404


def test_an_experiment_as_large_as_may_be_submitted_is_compared(
    database: Settings, in_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routers_of_jobs, "LARGEST_EXPERIMENT", 1)
    with in_process(database.model_copy(update={"max_experiment_jobs": 2})) as client:
        experiment(client, {"knn": {"kind": "knn", **TEXTURES, **TRAINED}})
        assert client.get("/compare", params={"experiment": "row"}).status_code == 200
        client.post("/jobs?experiment=row", json=PRETRAIN | {"name": "more"})
        refused = client.get("/compare", params={"experiment": "row"})
        assert "more than 2 jobs" in faults_of(refused)["experiment"]
        assert "BARLOW_MAX_EXPERIMENT_JOBS" in faults_of(refused)["experiment"]
