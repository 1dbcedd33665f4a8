"""A frozen backbone: it stays as it began, nothing is kept of it for backward, and the projector is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from torch import Tensor
from train_states import built, views

from barlow_lab.specs import KnnSpec, PretrainSpec, SpecError, digest, parse_spec
from barlow_lab.specs.slot_memory import FROZEN, sizes_of
from trainer import train_state
from trainer.evaluation.backbone import open_backbone
from trainer.models.backbones import build_backbone
from trainer.models.exported import load_backbone
from trainer.pretraining import pretrain
from trainer.runtime import compiling

FROZEN_TINY = {"name": "tiny", "frozen": True}
UPDATED = {**FROZEN_TINY, "statistics": "updated"}
PCL = {"name": "pcl", "queue": 96, "clusters": [4, 9], "negatives": 5, "warmup_epochs": 1, "momentum": 0.9}


def state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_it_is_published_and_judged_as_it_began_and_the_projector_learns(tmp_path: Path) -> None:
    spec, context = runs.spec(backbone=FROZEN_TINY, epochs=2), runs.context(tmp_path)
    assert pretrain(spec, context).outcome == "ok"
    began = build_backbone(spec.backbone, seed=spec.seed)
    assert runs.same(dict(load_backbone(context.attempt_folder / "backbone").state_dict()), dict(began.state_dict()))
    points = runs.series(tmp_path)
    assert points["loss", 10] < points["loss", 1]
    judging = {"kind": "knn", "data": "digits", "backbone_from": {"job": "p"}, "images": {"size": 12, "resize": 12}}
    context.inputs = {"backbone": {"checkpoint": str(context.attempt_folder / "checkpoints/step-00000010")}}
    open_backbone(KnnSpec.model_validate(judging), context)
    groups = runs.events(tmp_path, kind="started")[0].data["parameter_groups"]
    assert groups == {
        "matrices": {"tensors": 2, "parameters": 128 * 24 + 24 * 16},
        "others": {"tensors": 2, "parameters": 48},
    }


def test_compiled_it_is_looked_at_by_every_diagnostic_as_it_is_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("BACKEND", "aot_eager"), ("WARM_UP", 1), ("TIMED", 1)):
        monkeypatch.setattr(compiling, name, value)
    torch._dynamo.reset()
    probes = {"limit": 30, "k": 3, "epochs": 1}
    record = {"metrics_every_steps": 1, "information_plane": True, "information_directions": 8, "probes": probes}
    for wish in ("on", "off"):
        run = {"compile": wish, "record": record, "stop_on": ["collapse"]}
        end = pretrain(
            runs.spec(backbone=FROZEN_TINY, max_steps=2, precision="fp64", run=run), runs.context(tmp_path / wish)
        )
        assert end.result is not None
        assert end.result["health"]
    compiled, written = (runs.series(tmp_path / wish) for wish in ("on", "off"))
    asked = {"loss", "information_backbone", "view_information_embedding", "alpha_req", "probe_top1"}
    assert asked <= {name for name, _ in compiled}
    assert compiled == pytest.approx(written, rel=1e-6)
    assert runs.events(tmp_path / "on", kind="started")[0].data["network"]["compiled"]
    assert {event.step for event in runs.events(tmp_path / "on", kind="correlation")} == {0, 2}


def test_updated_statistics_follow_the_images_and_the_parameters_stay() -> None:
    state = built(backbone=UPDATED)
    before = state_of(state.model["backbone"])
    state.update(*views(1), 1)
    for name, value in state_of(state.model["backbone"]).items():
        assert torch.equal(value, before[name]) == ("running" not in name and "tracked" not in name), name


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
@pytest.mark.parametrize("widths", [[16], [24, 16]], ids=["linear", "two layers"])
def test_the_optimiser_has_the_projector_alone(optimizer: str, widths: list[int]) -> None:
    rate = {"name": optimizer, "learning_rate": 0.1, "reference_batch_size": None}
    state = built(backbone=FROZEN_TINY, optimizer=rate, projector={"widths": widths})
    before = state_of(state.model)
    for step in (1, 2):
        state.update(*views(step), step)
    held = [p for group in state._optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in state.model["projector"].parameters()}
    for name, value in state_of(state.model).items():
        assert torch.equal(value, before[name]) == name.startswith("backbone"), name
    assert all(p.grad is None for p in state.model["backbone"].parameters())
    state.raise_if_diverged()


@pytest.mark.parametrize("backbone", [FROZEN_TINY, UPDATED], ids=["frozen", "updated"])
def test_nothing_of_it_is_kept_for_backward(backbone: dict[str, Any]) -> None:
    state, kept = built(backbone=backbone), []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.ndim)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        state.update(*views(1), 1)
    assert kept
    assert max(kept) < 4, "no feature map"


def test_one_of_one_s_own_without_batch_normalisation_is_frozen_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    network.feature_width = 8  # type: ignore[assignment]
    monkeypatch.setattr(train_state, "build_backbone", lambda *_, **__: network)
    state = built(backbone=UPDATED, projector={"widths": [16]})
    before = state_of(state.model)
    state.update(*views(1), 1)
    moved = {name for name, value in state_of(state.model).items() if not torch.equal(value, before[name])}
    assert moved == {"projector.0.weight"}


def test_pieces_are_exact_where_nothing_normalises_by_the_batch() -> None:
    results = []
    for micro_batch in (None, 4):
        state = built(backbone=FROZEN_TINY, projector={"widths": [16]}, micro_batch=micro_batch, precision="fp64")
        losses = [state.update(*views(step), step).terms.loss.detach() for step in (1, 2)]
        results.append([*losses, state.model["projector"][0].weight.detach()])
    for whole, in_pieces in zip(*results, strict=True):
        torch.testing.assert_close(in_pieces, whole, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("backbone", "objective"),
    [(UPDATED, {"name": "vicreg"}), (FROZEN_TINY, PCL)],
    ids=["updated", "beside a momentum copy"],
)
def test_stopped_it_goes_on_to_the_same_bits(
    backbone: dict[str, Any], objective: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = runs.spec(backbone=backbone, objective=objective, epochs=2)
    assert pretrain(spec, runs.context(tmp_path / "whole")).outcome == "ok"
    stopped = runs.context(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(stopped.stop, "requested", lambda step: step == 7)
        assert pretrain(spec, stopped).outcome == "stopped"
    assert pretrain(spec, runs.context(tmp_path / "run", 2)).outcome == "ok"
    assert runs.series(tmp_path / "run") == runs.series(tmp_path / "whole")
    whole, found = runs.checkpoint(tmp_path / "whole", 1, 10), runs.checkpoint(tmp_path / "run", 2, 10)
    for part in whole.keys() - {"metrics"}:
        assert runs.same(found[part], whole[part]), part
    if "momentum_network" in whole:
        copied = whole["momentum_network"]
        assert all(torch.equal(copied[name], one) for name, one in whole["model"].items() if "backbone" in name)


def test_the_plan_counts_gradients_of_the_projector_alone() -> None:
    both = []
    for frozen in (False, True):
        spec = parse_spec(
            {"kind": "pretrain", "data": "digits", "backbone": {"name": "resnet18", "frozen": frozen},
             "projector": {"widths": [64, 32]}, "batch_size": 100, "optimizer": {"name": "adamw"}}
        )  # fmt: skip
        assert isinstance(spec, PretrainSpec)
        sizes = sizes_of(spec.backbone)
        assert sizes is not None
        both.append(spec.memory(sizes, None, None))
    trained, frozen_ = both
    projector = 512 * 64 + 64 * 32 + 2 * 64
    assert (frozen_.gradients, frozen_.optimizer) == (4 * projector, 8 * projector)
    assert (frozen_.weights, frozen_.objective) == (trained.weights, trained.objective)
    kept = 2 * 100 * 4 * (2 * 64 + 32)
    assert frozen_.activations - kept == pytest.approx((trained.activations - kept) / FROZEN, abs=2)


def test_what_cannot_be_is_refused_with_the_remedy_all_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"kind": "pretrain", "data": "digits", "backbone": FROZEN_TINY, "projector": "none", "epochs": 3,
                    "optimizer": {"warmup_epochs": 4}})  # fmt: skip
    found = {fault.pointer: fault.message for fault in caught.value.faults}
    assert found.keys() == {"/backbone/frozen", "/optimizer/warmup_epochs"}
    assert found["/backbone/frozen"].endswith("give the projector widths, or let the backbone train")
    with pytest.raises(SpecError, match=r"/backbone/statistics: a backbone that is trained .* or set frozen: true"):
        parse_spec({"kind": "pretrain", "data": "digits", "backbone": {"name": "tiny", "statistics": "updated"}})
    with pytest.raises(SpecError, match="/backbone/frozen"):
        parse_spec({"kind": "knn", "data": "digits", "backbone_from": {"random": 0}, "backbone": FROZEN_TINY})


def test_frozen_counts_in_the_digest_and_what_is_meant_anyway_does_not() -> None:
    plain, frozen, said, updated = (
        digest(parse_spec({"kind": "pretrain", "data": "digits", "backbone": backbone}))
        for backbone in ({"name": "tiny"}, FROZEN_TINY, {**FROZEN_TINY, "statistics": "frozen"}, UPDATED)
    )
    assert said == frozen
    assert len({plain, frozen, updated}) == 3
