"""Projectors by spec: with and without batch normalisation, linear, none; the plain one is as it always was.

Shape suffixes: n images, d features.
"""

from __future__ import annotations

from typing import Any

import pytest
import runs
import torch
from torch import nn
from train_states import built, views

from barlow_lab.specs import PretrainSpec, SpecError, VicregSpec, digest, parse_experiment, parse_spec
from barlow_lab.specs.slot_memory import sizes_of
from trainer import train_state
from trainer.failures import BadSpec
from trainer.models.projector import NoProjector, WideLinear, build_projector
from trainer.pretraining import pretrain

BASE = {"kind": "pretrain", "data": "digits", "backbone": {"name": "tiny"}}


def of(projector: Any) -> PretrainSpec:
    spec = parse_spec({**BASE, "projector": projector})
    assert isinstance(spec, PretrainSpec)
    return spec


@pytest.mark.parametrize(
    ("projector", "layers"),
    [
        ({"widths": [6, 4, 5]}, [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, WideLinear]),
        ({"widths": [6, 4, 5], "batch_norm": False}, [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, WideLinear]),
        ({"widths": [5]}, [WideLinear]),
        ({"widths": []}, []),
        ("none", []),
    ],
    ids=["plain", "without batch normalisation", "linear", "no width", "none"],
)
def test_the_layers_of_each_form_and_their_number_in_the_plan(projector: Any, layers: list[type[nn.Module]]) -> None:
    spec = of(projector)
    made = build_projector(128, spec.projector.widths, seed=0, batch_norm=spec.projector.batch_norm)
    assert [type(layer) for layer in made.children()] == layers
    assert isinstance(made, NoProjector) == (not layers)
    linear = [layer for layer in made.modules() if isinstance(layer, nn.Linear)]
    assert [layer.bias is not None for layer in linear] == [not spec.projector.batch_norm] * (len(linear) - 1) + [
        False
    ] * bool(linear)
    assert spec.put_on_top(128, None).projector == sum(p.numel() for p in made.parameters())
    assert made(torch.randn(9, 128)).shape == (9, spec.embedding_width())


def test_the_plain_form_has_its_digest_and_what_changes_nothing_has_one() -> None:
    assert digest(of({})) == digest(of({"widths": [8192] * 3, "batch_norm": True}))
    assert len({digest(of(each)) for each in ({}, {"batch_norm": False}, {"widths": [5]}, "none")}) == 4
    assert digest(of("none")) == digest(of({"widths": []}))
    for widths in ([5], []):
        assert digest(of({"widths": widths})) == digest(of({"widths": widths, "batch_norm": False}))


def test_forms_vary_in_an_experiment() -> None:
    grid = {"projector": ["none", {"widths": [16]}, {"widths": [16, 16], "batch_norm": False}]}
    value = {"name": "forms", "jobs": {"pretrain": {**BASE, "grid": grid}}}
    jobs = parse_experiment(value).jobs
    assert [spec.projector.widths for spec in jobs.values()] == [[], [16], [16, 16]]


def test_a_word_that_is_no_form_is_told() -> None:
    with pytest.raises(SpecError, match="/projector: an object is expected here"):
        of("linear")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_a_projector_the_objective_sees_the_features(precision: str) -> None:
    state = built(projector="none", precision=precision)
    update = state.update(*views(1), 1)
    assert update.z_a_nd.shape == (12, 128)
    assert update.z_a_nd.dtype == torch.float32
    assert state.groups.counts()["matrices"]["tensors"] == 4, "the backbone's convolutions alone"
    state.raise_if_diverged()


def test_without_a_projector_a_run_learns_and_its_memory_is_the_backbone_s(tmp_path: Any) -> None:
    spec = runs.spec(projector="none", epochs=2)
    assert pretrain(spec, runs.context(tmp_path)).outcome == "ok"
    points = runs.series(tmp_path)
    assert points["loss", 10] < points["loss", 1]
    sizes = sizes_of(spec.backbone)
    assert sizes is not None
    bare, linear = (of(projector).memory(sizes, None, None) for projector in ("none", {"widths": [128]}))
    assert bare.weights == 4 * sizes.parameters
    assert linear.activations - bare.activations == 2 * 2048 * 4 * 128
    assert bare.objective == linear.objective, "the width is that of the features"


def test_of_a_backbone_of_one_s_own_the_width_is_judged_when_it_is_known(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At submit its features are not known; the run knows them."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.feature_width = 8  # type: ignore[assignment]
    monkeypatch.setattr(train_state, "build_backbone", lambda *_, **__: network)
    monkeypatch.setattr("barlow_lab.specs.kinds.pretrain.sizes_of", lambda backbone: None)
    monkeypatch.setattr(VicregSpec, "faults", lambda self, *, batch_size, width: {"epsilon": f"not for {width}"})
    spec = runs.spec(projector="none", objective={"name": "vicreg"}, epochs=1)
    assert spec.embedding_width() is None
    with pytest.raises(BadSpec, match=r"objective.epsilon: not for 8"):
        pretrain(spec, runs.context(tmp_path))
