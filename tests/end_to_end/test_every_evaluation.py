"""One experiment with an evaluation of every kind, trained beside untrained, through the whole service, on trees of
files in the formats of real data sets: an image folder, VOC's XML, COCO's JSON with masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from running_stack import Up, wait_until
from typer.testing import CliRunner

from barlow_lab.specs.protocols import shown_protocol
from service.api.schemas import JobDetail
from service.client.api import Client
from service.command import app
from service.local.agreement import compare
from trainer.data.trees import write_tree

TREES = {
    "families": ("textures", "image_folder", 400),
    "boxed": ("scenes", "voc", 24),
    "masked": ("scenes", "coco", 24),
}
"""Data sets of this server: what is written, in which format, images of each split."""
BACKBONE = {"name": "tiny_resnet", "stem": "small"}
PRETRAIN: dict[str, Any] = {
    "kind": "pretrain",
    "data": {"name": "families", "limit": 256},
    "views": {"preset": "small_images", "size": 32},
    "backbone": BACKBONE,
    "projector": {"widths": [32, 32]},
    "optimizer": {"name": "adamw", "learning_rate": 0.003, "reference_batch_size": None},
    "epochs": 2,
    "batch_size": 64,
}
SMALL = {"data": "families", "images": {"size": 32, "resize": 32}}
DETECTOR: dict[str, Any] = {
    "kind": "detection",
    "data": {"name": "boxed", "limit": 16},
    "steps": 2,
    "batch_size": 4,
    "warmup_steps": 0,
    "train_sides": [64],
    "test_side": 64,
    "anchor_sizes": [32],
    "rois_per_image": 16,
    "proposals_train": 32,
    "proposals_test": 8,
}
EVALUATIONS: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear", **SMALL, "batch_size": 64, "epochs": 2},
    "cached": {"kind": "linear", **SMALL, "protocol": "cached-features", "epochs": 3},
    "one-percent": {"kind": "semi_supervised", **SMALL, "labels": {"percent": 2}, "batch_size": 8, "epochs": 2},
    "ten-percent": {"kind": "semi_supervised", **SMALL, "labels": {"percent": 10}, "batch_size": 16, "epochs": 2},
    "knn": {"kind": "knn", **SMALL},
    "svm": {"kind": "svm", "data": "boxed", "images": {"size": 64, "resize": 64}, "costs": [0.1, 1.0]},
    "closed-form": {
        "kind": "closed_form",
        "data": "families",
        "views": {"preset": "small_images", "size": 32},
        "floor": 0.1,
    },
    "invariance": {"kind": "invariance", **SMALL, "images_per_class": 4, "steps": 3},
    "boxes": DETECTOR,
    "masks": {**DETECTOR, "protocol": "coco-mask-rcnn-c4", "data": {"name": "masked", "limit": 16}},
}
HEADLINES = {
    "svm": "map_11_point",
    "closed-form": "held_out",
    "invariance": "ris",
    "boxes": "box_ap",
    "masks": "mask_ap",
}
PROTOCOLS = {
    "linear": "linear-document/1",
    "cached": "linear-cached-features/1",
    "one-percent": "semi-supervised-document/2",
    "ten-percent": "semi-supervised-document/2",
    "knn": "knn/1",
    "svm": "svm-voc07/1",
    "closed-form": "closed_form/1",
    "invariance": "invariance/1",
    "boxes": "detection-voc-faster-rcnn-c4/2",
    "masks": "detection-coco-mask-rcnn-c4/2",
}
PUBLISHED = {"source": "A table of somebody", "scores": {"top1": 73.2}}


def experiment() -> dict[str, Any]:
    trained = {name: {**spec, "backbone_from": {"job": "pretrain"}} for name, spec in EVALUATIONS.items()}
    untrained = {
        f"{name}-untrained": {**spec, "backbone_from": {"random": 0}, "backbone": BACKBONE}
        for name, spec in EVALUATIONS.items()
    }
    trained["linear"]["run"] = {"published": PUBLISHED}
    return {"name": "suite", "jobs": {"pretrain": PRETRAIN, **trained, **untrained}}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("trees")
    entries = {name: write_tree(what, form, folder / name, limit=n) for name, (what, form, n) in TREES.items()}
    (folder / "datasets.yaml").write_text(yaml.safe_dump(entries))
    up = Up(folder / "stack", {"BARLOW_DATASETS_FILE": str(folder / "datasets.yaml")}, ("--slots", "2"))
    try:
        up.start()
        yield up
    finally:
        up.end()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_one_post_judges_trained_beside_untrained_by_every_protocol(stack: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(stack.endpoints["api"], stack.token) as client:
        made = client.submit_experiment(experiment())
        jobs = {brief.name: _ended(client, brief.id) for brief in made.jobs}
        assert {name: job.state for name, job in jobs.items()} == dict.fromkeys(jobs, "succeeded"), [
            (name, job.error) for name, job in jobs.items() if job.error
        ]
        for name in EVALUATIONS:
            for job in (jobs[name], jobs[f"{name}-untrained"]):
                _is_whole(job, PROTOCOLS[name], HEADLINES.get(name, "top1"))
        assert jobs["one-percent"].result["labels"]["images"] == 8
        assert jobs["ten-percent"].result["labels"]["images"] == 40
        for kept, name in ((True, "linear"), (True, "ten-percent"), (True, "masks"), (False, "knn"), (False, "svm")):
            url = f"{stack.endpoints['api']}/api/v1/jobs/{jobs[name].id}/checkpoints"
            assert bool(httpx.get(url, headers=stack.bearer).json()["items"]) is kept, name

        compared = client.compare_experiment("suite")
    assert compared.backbones == ["pretrain", "untrained tiny_resnet, seed 0"]
    lined_up = {(row.protocol, row.data, row.score): row for row in compared.scores}
    assert len({(row.protocol, row.data) for row in compared.scores}) == len(EVALUATIONS)
    assert all(cell is not None for row in compared.scores for cell in row.cells)
    linear = lined_up["linear-document/1", "families", "top1"]
    assert (linear.published, linear.cells[0].last) == (73.2, jobs["linear"].result["scores"]["top1"]["last"])
    assert ("semi-supervised-document/2", "families, 2 % of labels", "top5") in lined_up
    assert ("detection-coco-mask-rcnn-c4/2", "masked, first 16", "mask_ap50") in lined_up

    agreement = compare(stack.endpoints["database"], stack.endpoints["mlflow"], "suite", token=stack.mlflow_token)
    # Two epochs are not 50 points of everything.
    assert [fault for fault in agreement.faults if "at least 50" not in fault] == []
    assert set(agreement.points) == set(jobs)
    runs = _mlflow_runs(stack)
    parent = runs["pretrain"]["info"]["run_id"]
    for name in EVALUATIONS:
        tags = {tag["key"]: tag["value"] for tag in runs[name]["data"]["tags"]}
        assert (tags["barlow.protocol"], tags["barlow.backbone"]) == (PROTOCOLS[name], "pretrain")
        assert tags["mlflow.parentRunId"] == parent
        headline, value = tags["barlow.headline"].split()[:2]
        assert headline == HEADLINES.get(name, "top1")
        assert float(value) == pytest.approx(jobs[name].result["scores"][headline]["last"], abs=0.006)
        other = {tag["key"]: tag["value"] for tag in runs[f"{name}-untrained"]["data"]["tags"]}
        assert (other["barlow.protocol"], other["barlow.data"]) == (tags["barlow.protocol"], tags["barlow.data"])
        metrics = {metric["key"]: metric["value"] for metric in runs[name]["data"]["metrics"]}
        assert metrics[f"{jobs[name].kind}_{headline}"] == jobs[name].result["scores"][headline]["last"]

    monkeypatch.setenv("BARLOW_URL", stack.endpoints["api"])
    monkeypatch.setenv("BARLOW_TOKEN", str(stack.token))
    printed = CliRunner().invoke(app, ["compare", "--experiment", "suite"])
    assert printed.exit_code == 0
    for protocol in PROTOCOLS.values():
        assert f"{shown_protocol(protocol)} on " in printed.output
    assert "published: A table of somebody" in printed.output


def _ended(client: Client, job_id: UUID) -> JobDetail:
    """The job once it has ended and all of it is recorded."""

    def done() -> bool:
        job = client.job(job_id)
        return job.state.terminal and job.recording.mlflow == "complete" == job.recording.postgres

    wait_until(done, 1500)
    return client.job(job_id)


def _is_whole(job: JobDetail, protocol: str, headline: str) -> None:
    """The result says what it was measured on, by which protocol, of what, and every score last and best."""
    result = job.result
    assert (result["protocol"], result["headline"]) == (protocol, headline)
    assert headline in result["scores"]
    for name, score in result["scores"].items():
        assert 0 <= score["last"] <= score["best"] + 1e-9 or name != headline, (job.name, name)
        assert 0 <= score["last"] <= 100, (job.name, name)
    data = result["data"]
    assert (data["train_split"], data["test_split"]) == ("train", "test")
    assert len(data["train_fingerprint"]) == len(data["test_fingerprint"]) == 64
    assert data["test_images"] > 0
    assert len(result["backbone"]["digest"]) == 64
    assert set(result["departures"]) <= set(job.spec)
    if job.kind == "detection":
        assert "steps" in result["departures"]


def _mlflow_runs(stack: Up) -> dict[str, dict[str, Any]]:
    with stack.ask_mlflow() as client:
        found = client.get("experiments/get-by-name", params={"experiment_name": "suite"}).json()
        body = {"experiment_ids": [found["experiment"]["experiment_id"]]}
        return {run["info"]["run_name"]: run for run in client.post("runs/search", json=body).json()["runs"]}
