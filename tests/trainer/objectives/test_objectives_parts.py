"""What the loop does with parts that an objective trains itself, a predictor for one. Several ranks: rank_laws.py.

Shape suffixes: n images, d features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from torch import Tensor, nn
from train_states import built, views

from barlow_lab.specs import VicregSpec, parse_spec
from barlow_lab.specs.slot_memory import BackboneSizes
from trainer import train_state
from trainer.models.predictor import build_predictor
from trainer.objectives.base import Objective, Run, Terms
from trainer.pretraining import pretrain
from trainer.runtime.compiling import CompileChoice
from trainer.train_state import TrainState

NUMBERS = 16 * 8 + 2 * 8 + 8 * 16 + 16


class Predicting(Objective):
    """View a, through a predictor, is drawn to view b, which has no gradient."""

    def begin(self, run: Run) -> None:
        self.parts = nn.ModuleDict({"predictor": build_predictor(run.width, 8, bias=True, seed=run.seed)})

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        assert self.parts is not None
        # A sum, so that the shares of ranks and pieces are what they are without a mean over them.
        return Terms((self.parts["predictor"](z_a_nd) - z_b_nd.detach()).square().sum(), {})


@pytest.fixture(autouse=True)
def predicting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_state, "build_objective", Predicting)


def parts(state: TrainState) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.model["objective"].state_dict().items()}


def test_they_are_drawn_from_the_seed_and_leave_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    one, same, other = built(), built(), built(seed=1)
    assert runs.same(parts(one), parts(same))
    assert not torch.equal(parts(one)["predictor.0.weight"], parts(other)["predictor.0.weight"])
    monkeypatch.undo()
    plain = dict(built().model.state_dict())
    assert {n: v for n, v in one.model.state_dict().items() if not n.startswith("objective")}.keys() == plain.keys()
    assert all(torch.equal(one.model.state_dict()[name], value) for name, value in plain.items())


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
def test_their_rate_follows_the_schedule_or_is_constant(
    optimizer: str, constant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predicting, "constant_rate", constant)
    state = built(optimizer={"name": optimizer, "reference_batch_size": None, "learning_rate": 0.01})
    network = state.model["backbone"], state.model["projector"]
    before = parts(state), [p.clone() for module in network for p in module.parameters()]
    state._schedule = train_state.Schedule(10, 100, 0.0)  # the first step of a warm-up has rate 0
    state.update(*views(1), 1)
    assert all(torch.equal(p, q) for p, q in zip(before[1], (p for m in network for p in m.parameters()), strict=True))
    moved = [not torch.equal(before[0][name], p) for name, p in state.model["objective"].named_parameters()]
    assert moved == [constant] * 5
    state.update(*views(2), 2)
    assert not any(torch.equal(before[0][name], p) for name, p in state.model["objective"].named_parameters())


def test_each_is_in_its_group_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    state = built()
    weights = {id(p) for n, p in state.model["objective"].named_parameters() if p.ndim == 2}
    assert weights <= {id(p) for p in state.groups.matrices}
    in_all = sum(one["parameters"] for one in state.groups.counts().values())
    assert in_all == sum(p.numel() for p in state.model.parameters())
    monkeypatch.setattr(Predicting, "constant_rate", True)
    counts = built().groups.counts()
    assert counts["constant_matrices"] == {"tensors": 2, "parameters": 2 * 8 * 16}
    assert counts["constant_others"] == {"tensors": 3, "parameters": 2 * 8 + 16}


def test_pieces_go_through_them_at_once_with_statistics_of_the_whole_batch() -> None:
    """What the network gives for its pieces is taken as it is: from there on nothing knows of them."""
    state = built(micro_batch=4, precision="fp64")
    before = parts(state)
    update = state.update(*views(1), 1)
    alone = build_predictor(16, 8, bias=True, seed=0).double()
    alone.load_state_dict({name.removeprefix("predictor."): value for name, value in before.items()})
    (alone(update.z_a_nd) - update.z_b_nd).square().sum().backward()
    found = dict(state.model["objective"]["predictor"].named_parameters())
    for name, parameter in alone.named_parameters():
        assert found[name].grad is not None
        assert (found[name].grad - parameter.grad).abs().max() <= 1e-12 * parameter.grad.abs().max()
    after = parts(state)
    torch.testing.assert_close(after["predictor.1.running_mean"], alone[1].running_mean, rtol=1e-12, atol=1e-14)
    assert after["predictor.1.num_batches_tracked"] == 1


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_they_are_float32_beside_a_network_in_16_bits(half: str) -> None:
    state = built(precision=half)
    if half == "fp16":
        state._guard.scale.fill_(2.0**8)
    seen = []
    state.model["objective"]["predictor"].register_forward_hook(lambda *given: seen.append(given[2]))
    update = state.update(*views(1), 1)
    (predicted,) = seen
    assert predicted.dtype == torch.float32
    assert not torch.equal(predicted, predicted.to(torch.bfloat16).float())
    assert update.gradient_norm.isfinite()


def test_a_step_that_is_skipped_moves_neither_them_nor_their_statistics() -> None:
    state = built(precision="fp16")
    state._guard.scale.fill_(2.0**127)
    before = parts(state)
    update = state.update(*views(1), 1)
    assert not update.gradient_norm.isfinite()
    assert all(torch.equal(v, before[n]) for n, v in parts(state).items() if "num_batches" not in n)


def test_a_trial_of_the_network_leaves_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    state = built()
    before = parts(state)

    def choose(wish: str, network: Any, try_out: Any, *_: Any) -> tuple[Any, CompileChoice]:
        try_out(network)
        return network, CompileChoice(False)

    monkeypatch.setattr(train_state, "choose", choose)
    state.choose_network(1, lambda: None)
    assert runs.same(parts(state), before)


def test_stopped_a_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    spec = runs.spec(epochs=1)
    assert pretrain(spec, runs.context(tmp_path / "whole")).outcome == "ok"
    stopped = runs.context(tmp_path / "run")
    stopped.stop.requested = lambda step: step == 2  # type: ignore[method-assign]
    assert pretrain(spec, stopped).outcome == "stopped"
    assert pretrain(spec, runs.context(tmp_path / "run", 2)).outcome == "ok"
    whole, found = runs.checkpoint(tmp_path / "whole", 1, 5), runs.checkpoint(tmp_path / "run", 2, 5)
    assert "objective.predictor.0.weight" in whole["model"]
    for part in ("model", "optimizer"):
        assert runs.same(found[part], whole[part]), part


def test_plans_count_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"kind": "pretrain", "data": "digits", "objective": {"name": "vicreg"}, "projector": {"widths": [24, 16]}}
    spec = parse_spec(asked)
    sizes = BackboneSizes(features=32, parameters=1000, bytes_of_224=1e6, bytes_of_224_imagenet=1e6)
    before = spec.put_on_top(32, None), spec.memory(sizes, None, None)
    monkeypatch.setattr(VicregSpec, "trained_numbers", lambda self, features: NUMBERS if features == 16 else 0)
    after = spec.put_on_top(32, None), spec.memory(sizes, None, None)
    assert after[0].objective == after[0].total - before[0].total == NUMBERS
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(after[1], part) - getattr(before[1], part) == 4 * NUMBERS
    assert after[1].objective == before[1].objective
