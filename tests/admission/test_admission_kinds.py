"""The numbers of a plan by kind: memory that each trains and keeps, parameters of the heads."""

from __future__ import annotations

from typing import Any

import pytest

from barlow_lab.specs import BackboneSpec, parse_spec
from service.admission.plan import memory, parameters

IMAGES = {"data": {"name": "textures"}, "images": {"size": 32, "resize": 32}}
UNTRAINED = {"backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}
TINY = BackboneSpec(name="tiny")
RESNET = BackboneSpec(name="resnet18", stem="small")
SEMI = {"kind": "semi_supervised", **IMAGES, **UNTRAINED, "labels": {"percent": 10}, "batch_size": 64}
LINEAR = {"kind": "linear", **IMAGES, **UNTRAINED}
DETECTION: dict[str, Any] = {
    "kind": "detection",
    "data": {"name": "scenes"},
    "backbone_from": {"random": 0},
    "backbone": {"name": "resnet18", "stem": "small"},
}


def test_memory_is_of_what_each_kind_trains() -> None:
    knn = memory(parse_spec({"kind": "knn", **IMAGES, **UNTRAINED}), TINY, 8, 4000)
    linear, semi = (memory(parse_spec(spec), TINY, 8, 4000) for spec in (LINEAR, {**SEMI, "batch_size": 256}))
    backbone, head = parameters(parse_spec(SEMI), TINY, 8).backbone, 128 * 8 + 8
    assert (knn.weights, knn.gradients, knn.optimizer) == (4 * backbone, 0, 0)
    assert (linear.gradients, linear.optimizer, linear.features) == (4 * head, 4 * head, 0)
    assert linear.weights == semi.weights == semi.gradients == semi.optimizer == 4 * (backbone + head)
    assert linear.activations == knn.activations
    assert semi.activations == pytest.approx(20 * knn.activations, rel=1e-6)
    assert knn.features == 4000 * 128 * 4
    shared = memory(parse_spec({"kind": "knn", **IMAGES, **UNTRAINED, "resources": {"slots": 3}}), TINY, 8, 4000)
    assert shared.features == 1334 * 128 * 4
    assert memory(parse_spec({"kind": "svm", **IMAGES, **UNTRAINED}), TINY, 8, 4000).features == 2 * knn.features
    double = memory(parse_spec({**SEMI, "precision": "fp64", "batch_size": 256}), TINY, 8, 4000)
    assert (double.optimizer, double.activations) == (2 * semi.optimizer, pytest.approx(2 * semi.activations, abs=2))
    halves = memory(parse_spec({**SEMI, "resources": {"slots": 2}, "batch_size": 256}), TINY, 8, 4000)
    assert halves.activations == pytest.approx(semi.activations / 2, abs=2)


def test_the_memory_of_a_detector_grows_with_its_images_and_with_its_regions() -> None:
    def need(**fields: Any) -> int:
        return memory(parse_spec({**DETECTION, **fields}), RESNET, 5).activations

    small = {"train_sides": [128], "longest_side": 128, "test_side": 128}
    per_image = {regions: need(**small, rois_per_image=regions, batch_size=2) / 2 for regions in (100, 200)}
    regions = per_image[200] - per_image[100]
    assert regions / 100 == pytest.approx(22.2e6 / 18, rel=1e-6)  # of a 224 px view with the ImageNet stem
    assert per_image[100] - regions == pytest.approx(230.2e6 * 128 * 128 / 224**2, rel=1e-6)
    wide = need(**{**small, "longest_side": 256}, rois_per_image=100, batch_size=2) / 2
    assert wide - regions == pytest.approx(2 * (per_image[100] - regions), rel=1e-6)


@pytest.mark.parametrize("masks", [False, True])
def test_parameters_of_a_detector_are_those_of_the_real_one(masks: bool) -> None:
    from trainer.models.backbones import build_backbone
    from trainer.models.detectors.c4 import C4Detector, DetectorForm

    spec = parse_spec({**DETECTION, "masks": masks, "anchor_sizes": [32, 64], "anchor_ratios": [1.0]})
    counted = parameters(spec, RESNET, 5)
    assert counted.head is not None
    form = DetectorForm(5, masks, (32, 64), (1.0,), 8, 8, 8)
    detector = C4Detector(build_backbone(RESNET, seed=0), form, seed=0, products=None)
    assert counted.total == sum(p.numel() for p in detector.parameters())
    assert counted.total == counted.backbone + counted.head
    assert parameters(spec, RESNET).head is None
