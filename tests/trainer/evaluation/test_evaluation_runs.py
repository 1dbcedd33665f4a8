"""Whole evaluations on real images: sources, frozen backbones, stops, and the same result for 1 and 2 ranks."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations_of_digits import context_in, spec_of
from torch import nn

from barlow_lab.environment import RENDEZVOUS_FILE
from barlow_lab.journal import read_events
from barlow_lab.specs import BackboneSpec, EvaluationSpec, KnnSpec, LinearSpec, PretrainSpec, parse_spec
from trainer.data.registry import open_data_set
from trainer.evaluation import run_evaluation
from trainer.evaluation.backbone import FrozenBackbone, open_backbone
from trainer.evaluation.features import Features, extract
from trainer.failures import BadSpec
from trainer.models.backbones import build_backbone
from trainer.models.exported import backbone_digest, save_backbone
from trainer.optim.schedules import schedule_of
from trainer.runtime import process_group
from trainer.runtime.checkpoints import write_checkpoint
from trainer.runtime.context import Context
from trainer.runtime.rank_exit import end_process
from trainer.runtime.units import Units
from trainer.train_state import TrainState

TINY = BackboneSpec(name="tiny")


def of_job(**fields: Any) -> KnnSpec | LinearSpec:
    return spec_of(backbone_from={"job": "p"}, backbone=None, **fields)


def features_of(spec: EvaluationSpec, context: Context) -> Features:
    share = extract(
        open_backbone(spec, context).module,
        open_data_set("digits", "test", limit=61),
        spec.images,
        batch_size=spec.batch_size,
        phase="features test",
        context=context,
        units=Units(context),
    )
    return share.gathered("features test", context)


def rank_of_two(rank: int, folder: Path) -> None:
    """One of two real processes: features of an odd number of images, then both protocols."""
    import os

    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        RENDEZVOUS_FILE: str(folder / "meeting"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    torch.set_num_threads(1)
    process_group.join()
    found = features_of(spec_of(batch_size=10), context_in(folder / "features", rank=rank, world_size=2))
    results = {
        kind: run_evaluation(spec_of(kind), context_in(folder / kind, rank=rank, world_size=2))
        for kind in ("knn", "linear")
    }
    torch.save(
        {"values": found.values, "indices": found.indices, "results": json.dumps(results)}, folder / f"rank{rank}.pt"
    )
    process_group.leave()
    end_process(0)


def test_two_ranks_give_what_one_rank_gives(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=rank_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=120)
        process.kill()
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]

    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    alone = features_of(spec_of(batch_size=10), context_in(tmp_path / "alone"))
    for found in (first, second):
        torch.testing.assert_close(found["values"], alone.values, rtol=0, atol=1e-6)
        assert torch.equal(found["indices"], alone.indices)
    assert first["results"] == second["results"]
    for kind in ("knn", "linear"):
        expected = run_evaluation(spec_of(kind), context_in(tmp_path / f"{kind}-alone"))
        assert json.loads(first["results"])[kind] == expected
        points, points_alone = (
            [e.data["values"] for e in read_events(tmp_path / f / "journal.jsonl") if e.kind == "metrics"]
            for f in (kind, f"{kind}-alone")
        )
        assert len(points) == len(points_alone) == (1 if kind == "knn" else 100)
        for ours, theirs in zip(points, points_alone, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 61, 500])
def test_features_are_every_image_once_in_order_for_any_batch(tmp_path: Path, batch_size: int) -> None:
    found = features_of(spec_of(batch_size=batch_size, backbone_from={"pixels": True}, backbone=None),
                        context_in(tmp_path))  # fmt: skip
    dataset = open_data_set("digits", "test", limit=61)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = [((dataset.image(i) / 255 - mean) / std).transpose(2, 0, 1).ravel() for i in range(61)]
    np.testing.assert_allclose(found.values.numpy(), np.stack(expected), atol=1e-5)
    assert (found.indices.tolist(), found.total) == (list(range(61)), 61)


def test_random_features_come_from_the_seed(tmp_path: Path) -> None:
    a, b, c = (
        features_of(spec_of(backbone_from={"random": seed}), context_in(tmp_path / str(n)))
        for n, seed in enumerate([3, 3, 4])
    )
    assert torch.equal(a.values, b.values)
    assert not torch.allclose(a.values, c.values)


def test_the_result_says_what_was_judged_on_what(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    result = run_evaluation(spec_of(k=5), context)
    assert result is not None
    train, test = open_data_set("digits", "train", limit=203), open_data_set("digits", "test")
    assert result["data"] == {
        "name": "digits",
        "train_split": "train",
        "test_split": "test",
        "train_fingerprint": train.fingerprint,
        "test_fingerprint": test.fingerprint,
        "train_images": 203,
        "test_images": len(test),
        "unreadable": {"train": 0, "test": 0},
        "classes": 10,
    }
    digest = backbone_digest(build_backbone(TINY, seed=3).state_dict())
    assert result["backbone"] == {"source": {"random": 3, "name": "tiny"}, "digest": digest, "features": 128}
    assert (result["protocol"], result["k"]) == ("knn/1", 5)
    scores = result["scores"]
    assert result["headline"] == "top1"
    assert 10 < scores["top1"]["last"] <= scores["top5"]["last"] <= 100
    json.dumps(result, allow_nan=False)
    events = list(read_events(tmp_path / "journal.jsonl"))
    (point,) = [e for e in events if e.kind == "metrics"]
    assert (point.step, point.data["values"]["knn_top1"]) == (0, scores["top1"]["last"])
    phases = [e.data["phase"] for e in events if e.kind == "progress" and "gathering" not in e.data["phase"]]
    assert list(dict.fromkeys(phases)) == [
        "opening the backbone",
        "loading data",
        "features train",
        "features test",
        "neighbours",
    ]


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_every_phase_tells_of_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("trainer.runtime.context.PROGRESS_SECONDS", 0.0)
    spec = spec_of(k=5) if kind == "knn" else spec_of("linear", epochs=1)
    assert run_evaluation(spec, context_in(tmp_path)) is not None
    phases = [e.data["phase"] for e in read_events(tmp_path / "journal.jsonl") if e.kind == "progress"]
    gathering = ["features train, gathering", "features test, gathering"] if kind == "linear" else []
    assert list(dict.fromkeys(phases)) == [
        "opening the backbone",
        "loading data",
        "features train",
        "features test",
        *gathering,
        "neighbours" if kind == "knn" else "classifier",
    ]
    if kind == "linear":
        assert phases.count("classifier") > 2  # within its only epoch


def test_a_published_backbone_is_judged_as_the_module_it_was(tmp_path: Path) -> None:
    module = build_backbone(TINY, seed=3)
    save_backbone(tmp_path / "backbone", module, TINY, details={})
    inputs = {"backbone": {"path": str(tmp_path / "backbone"), "sha256": backbone_digest(module.state_dict())}}
    published = run_evaluation(of_job(), context_in(tmp_path / "a", inputs=inputs))
    random = run_evaluation(spec_of(), context_in(tmp_path / "b"))
    assert published is not None
    assert random is not None
    assert published["backbone"]["source"] == {"job": "p", "select": "last"}
    assert published["backbone"]["digest"] == random["backbone"]["digest"]
    assert published["scores"] == random["scores"]

    inputs["backbone"]["sha256"] = "0" * 64
    with pytest.raises(BadSpec, match="published anew"):
        run_evaluation(of_job(), context_in(tmp_path / "c", inputs=inputs))


def test_a_checkpoint_of_a_pretraining_is_judged_and_a_broken_one_refused(tmp_path: Path) -> None:
    spec = parse_spec({"kind": "pretrain", "data": "digits", "seed": 5, "backbone": {"name": "tiny"},
                       "projector": {"widths": [8, 8]}, "batch_size": 8, "precision": "fp64"})  # fmt: skip
    assert isinstance(spec, PretrainSpec)
    state = TrainState(spec, schedule_of(spec, steps_per_epoch=1, total_steps=10), torch.device("cpu"))
    folder = write_checkpoint(
        context_in(tmp_path / "p"), state.state_dict(), step=7, epoch=1, spec=spec.resolved(), spec_digest="d",
        policy=spec.run.checkpoint, milestone=False, metrics={},
    )  # fmt: skip
    inputs = {"backbone": {"checkpoint": str(folder)}}
    opened = open_backbone(of_job(), context_in(tmp_path / "a", inputs=inputs))
    assert opened.digest == backbone_digest(build_backbone(TINY, seed=5).state_dict())

    with (folder / "state.pt").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00\x01\x02")
    with pytest.raises(BadSpec, match="not the file that was written"):
        open_backbone(of_job(), context_in(tmp_path / "b", inputs=inputs))


@pytest.mark.parametrize("inputs", [{}, {"backbone": None}, {"backbone": {"path": "nowhere"}}])
def test_a_backbone_that_is_not_there_is_a_bad_spec(tmp_path: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(BadSpec, match="backbone"):
        open_backbone(of_job(), context_in(tmp_path, inputs=inputs))


def test_an_evaluation_leaves_the_backbone_as_it_was_and_notices_if_not(tmp_path: Path) -> None:
    opened = open_backbone(spec_of(), context_in(tmp_path))
    assert not any(p.requires_grad for p in opened.module.parameters())
    assert not any(m.training for m in opened.module.modules())
    opened.module(torch.randn(4, 3, 8, 8))
    opened.check_frozen()
    opened.module.train()(torch.randn(4, 3, 8, 8))
    with pytest.raises(AssertionError, match="changed its backbone"):
        opened.check_frozen()
    FrozenBackbone(nn.Flatten(), {}, None).check_frozen()


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    module = build_backbone(TINY, seed=0)
    next(iter(module.parameters())).data.fill_(float("nan"))
    save_backbone(tmp_path / "backbone", module, TINY, details={})
    inputs = {"backbone": {"path": str(tmp_path / "backbone")}}
    with pytest.raises(BadSpec, match=r"image 0 \(features train\) are not finite"):
        run_evaluation(of_job(), context_in(tmp_path / "a", inputs=inputs))


def test_a_stop_request_ends_the_feature_pass_and_a_restart_finishes(tmp_path: Path) -> None:
    context = context_in(tmp_path / "a")
    (tmp_path / "a" / "control.json").write_text(json.dumps({"stop": "drain"}))
    assert run_evaluation(spec_of("linear", epochs=2), context) is None
    assert context.stop.reason == "drain"
    assert not [e for e in read_events(tmp_path / "a" / "journal.jsonl") if e.kind == "metrics"]
    results = [run_evaluation(spec_of("linear", epochs=2), context_in(tmp_path / name)) for name in "bc"]
    assert results[0] is not None
    assert results[0] == results[1]
