"""Detection on several ranks, for test_detection_runs.py: in its own process for one rank, and as a script,
`python detection_ranks.py FOLDER`, on several."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch
from drawn_objects import DrawnObjects

from barlow_lab.specs import DetectionSpec
from barlow_lab.specs.common import BackboneSpec
from trainer.data.loading.detection import DetectionBatches
from trainer.evaluation.backbone import FrozenBackbone
from trainer.evaluation.detection.running import build_detector
from trainer.evaluation.detection.testing import DetectorTest
from trainer.evaluation.detection.training import DetectionFit
from trainer.models.backbones import build_backbone
from trainer.runtime import process_group
from trainer.runtime.context import Context
from trainer.runtime.rank_exit import end_process
from trainer.runtime.stopping import StopRequests
from trainer.runtime.units import Units

STEPS = 3


def spec(**changes: Any) -> DetectionSpec:
    """A small Mask R-CNN on small images: a step takes a tenth of a second."""
    return DetectionSpec.model_validate(
        {
            "kind": "detection",
            "protocol": "coco-mask-rcnn-c4",
            "data": {"name": "scenes"},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny_resnet", "stem": "small"},
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 0.02,
            "warmup_steps": 2,
            "train_sides": [48, 64],
            "test_side": 56,
            "longest_side": 96,
            "anchor_sizes": [12, 20, 32],
            "rois_per_image": 16,
            "proposals_train": 50,
            "proposals_test": 20,
            "run": {"checkpoint": {"every_steps": 3}, "record": {"metrics_every_steps": 1}},
            **changes,
        }
    )


def context(folder: Path, rank: int, ranks: int) -> Context:
    """A rank that is not heard."""
    device = torch.device("cpu")
    stop = StopRequests(folder / "control.json", rank=rank, device=device)
    return Context(rank, ranks, device, 1, folder, folder, 1, {"backbone": None, "data": {}}, None, stop)


def fit(given: DetectionSpec, folder: Path = Path(), rank: int = 0, ranks: int = 1) -> DetectionFit:
    """An untrained detector, tested on images of odd sizes and trained on images of one size."""
    here = context(folder, rank, ranks)
    backbone = FrozenBackbone(build_backbone(BackboneSpec(name="tiny_resnet", stem="small"), seed=0), {}, "digest")
    batches = DetectionBatches(
        DrawnObjects(12, ignored=True), sides=(64,), longest=96, batch_size=4, seed=0, rank=rank, world_size=ranks,
        threads=1,
    )  # fmt: skip
    test = DetectorTest(given, DrawnObjects(7, odd=True, seed=1, ignored=True), here)
    detector = build_detector(given, backbone.trainable_copy(), classes=2)
    return DetectionFit(given, detector, batches, test, backbone, here)


def trained_and_tested(folder: Path, rank: int, ranks: int) -> dict[str, Any]:
    """Scores of the untrained detector, metrics and parameters after a few steps, and the parameters of one that took
    over before the last step, all in float64."""
    given = spec(precision="fp64")
    built, resumed = fit(given, folder, rank, ranks), fit(given, folder, rank, ranks)
    untrained = built.test(0, Units(context(folder, rank, ranks)))
    metrics: dict[str, float] = {}
    for step, batch in enumerate(built.batches(0, STEPS), start=1):
        if step == STEPS:
            resumed.load_trained_state(built.trained_state())
            resumed.descent.load_state_dict(copy.deepcopy(built.descent.state_dict()))
        values = built.descend(batch, step, 1.0)
        metrics |= {f"{name} {step}": float(value) for name, value in values.items()}
    torch.rand(5 + rank)
    for batch in resumed.batches(STEPS - 1, STEPS):
        resumed.descend(batch, STEPS, 1.0)
    states = [
        {name: tensor.clone() for name, tensor in one.trained_state()["detector"].items()} for one in (built, resumed)
    ]
    return {"untrained": untrained, "metrics": metrics, "state": states[0], "resumed": states[1]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = process_group.join()
    out = Path(sys.argv[1])
    torch.save(trained_and_tested(out, place.rank, place.world_size), out / f"{place.rank}.pt")
    process_group.leave()
    end_process(0)
