"""The numbers of a plan, against the modules that the trainer really builds."""

from __future__ import annotations

import pytest
from api_kit import KNN, PRETRAIN

from barlow_lab.specs import BackboneSpec, PretrainSpec, parse_spec
from service.admission.plan import memory, parameters
from trainer.models.backbones import build_backbone
from trainer.models.projector import build_projector

SMALL_RESNET = BackboneSpec(name="resnet18", stem="small")


@pytest.mark.parametrize(
    ("name", "stem", "widths"),
    [("tiny", "imagenet", [64]), ("tiny", "small", [48, 32]), ("resnet18", "small", [128, 256, 64]),
     ("resnet18", "imagenet", [512, 512]), ("resnet50", "small", [32, 32]),
     ("tiny_resnet", "imagenet", [64]), ("tiny_resnet", "small", [64])],
)  # fmt: skip
def test_parameters_are_those_of_the_real_modules(name: str, stem: str, widths: list[int]) -> None:
    spec = parse_spec({**PRETRAIN, "backbone": {"name": name, "stem": stem}, "projector": {"widths": widths}})
    assert isinstance(spec, PretrainSpec)
    backbone = build_backbone(spec.backbone, seed=0)
    projector = build_projector(backbone.feature_width, widths, seed=0)  # type: ignore[arg-type]
    counted = parameters(spec, spec.backbone)
    assert counted.backbone == sum(p.numel() for p in backbone.parameters())
    assert counted.projector == sum(p.numel() for p in projector.parameters())
    assert counted.total == counted.backbone + counted.projector


def test_memory_follows_its_formula() -> None:
    spec = parse_spec({**PRETRAIN, "batch_size": 100, "resources": {"slots": 2}, "optimizer": {"name": "adamw"}})
    assert isinstance(spec, PretrainSpec)
    need = memory(spec, spec.backbone)
    total = parameters(spec, spec.backbone).total
    assert (need.weights, need.gradients, need.optimizer) == (4 * total, 4 * total, 8 * total)
    assert need.objective == 64 * 64 * 4
    dual = memory(parse_spec({**PRETRAIN, "batch_size": 40, "resources": {"slots": 2}}), spec.backbone)
    assert dual.objective == (20 * 20 + 2 * 40 * 64) * 4
    wide = {**PRETRAIN, "batch_size": 40, "resources": {"slots": 2}, "objective": {"form": "sharded"}}
    assert memory(parse_spec(wide), spec.backbone).objective == 64 * 64 // 8 * 4
    double = memory(parse_spec({**PRETRAIN, "batch_size": 200, "resources": {"slots": 2}}), spec.backbone)
    assert double.activations == pytest.approx(2 * need.activations, abs=2)
    half = memory(
        parse_spec({**PRETRAIN, "batch_size": 100, "resources": {"slots": 2}, "precision": "bf16"}), spec.backbone
    )
    assert half.activations == pytest.approx(need.activations / 2, abs=2)
    double = memory(parse_spec({**PRETRAIN, "precision": "fp64", "optimizer": {"name": "adamw"}}), spec.backbone)
    assert double.optimizer == 2 * need.optimizer, "running averages are of the parameters' type"
    looked = {"population": {"images": 64}}
    for record, matrices in ((looked, 2), ({**looked, "spectra": True}, 6)):
        found = memory(parse_spec({**PRETRAIN, "run": {"record": record}}), spec.backbone)
        assert found.features == matrices * spec.projector.widths[-1] ** 2 * 8
    small = memory(parse_spec({**PRETRAIN, "backbone": {"name": "resnet18", "stem": "small"}}), SMALL_RESNET)
    large = memory(parse_spec({**PRETRAIN, "backbone": {"name": "resnet18"}}), BackboneSpec(name="resnet18"))
    projector = 2 * 100 * 4 * (2 * 128 + 64)
    assert (small.activations - projector) / (large.activations - projector) == pytest.approx(230.2 / 22.2)
    pieces = memory(parse_spec({**PRETRAIN, "micro_batch": 10}), spec.backbone)
    whole = memory(parse_spec(PRETRAIN), spec.backbone)
    assert pieces.activations == pytest.approx(whole.activations / 10 + 4 * 100 * 64 * 4, abs=2)
    objective = {"name": "pcl", "queue": 400, "clusters": [5, 50], "negatives": 9}
    pcl = parse_spec({**PRETRAIN, "batch_size": 100, "resources": {"slots": 2}, "objective": objective})
    held = memory(pcl, spec.backbone, images=1000)
    assert held.objective == 4 * (455 * 64 + 2 * 50 * (400 + 5 + 10) + total)
    assert held.features == 12 * 64 * 1000
    assert held.activations == pytest.approx(need.activations / 2, abs=2)
    judged = memory(parse_spec({**KNN, "backbone_from": {"job": "x"}}), BackboneSpec(name="tiny"))
    assert (judged.gradients, judged.optimizer, judged.objective) == (0, 0, 0)
