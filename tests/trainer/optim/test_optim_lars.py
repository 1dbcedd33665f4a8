"""LARS, schedules and parameter groups."""

import math

import pytest
import torch
from torch import nn

from barlow_lab.specs import BackboneSpec, PretrainSpec
from trainer.models.backbones import empty_backbone
from trainer.models.projector import build_projector
from trainer.optim.build import build_optimizer, set_rates
from trainer.optim.groups import ParameterGroups, parameter_groups
from trainer.optim.lars import Lars
from trainer.optim.schedules import Schedule, rate_scale, schedule_of
from trainer.runtime.batch_norm import synchronise_batch_norm


def _spec(**changes: object) -> PretrainSpec:
    return PretrainSpec.model_validate({"data": "digits", **changes})


def _lars(matrices: list[nn.Parameter], others: list[nn.Parameter]) -> Lars:
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0, "adapted": False}]
    return Lars(groups, lr=0.5, momentum=0.9, weight_decay=0.1, trust_coefficient=0.01)


def test_lars_follows_its_formula_for_three_steps():
    generator = torch.Generator().manual_seed(0)
    weight, bias = (nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64)) for n in (6, 3))
    optimizer = _lars([weight], [bias])
    p, v, q_bias, v_bias = weight.detach().clone(), torch.zeros(6), bias.detach().clone(), torch.zeros(3)
    for _ in range(3):
        weight.grad, bias.grad = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (6, 3))
        decayed = weight.grad + 0.1 * p
        ratio = 0.01 * math.sqrt((p * p).sum()) / math.sqrt((decayed * decayed).sum())
        v = 0.9 * v + ratio * decayed
        p = p - 0.5 * v
        v_bias = 0.9 * v_bias + bias.grad
        q_bias = q_bias - 0.5 * v_bias
        optimizer.step()
    torch.testing.assert_close(weight.detach(), p, rtol=1e-13, atol=0)
    torch.testing.assert_close(bias.detach(), q_bias, rtol=1e-13, atol=0)


def test_lars_takes_a_zero_weight_or_a_zero_gradient_without_adaptation():
    zero, still = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))
    zero.grad, still.grad = torch.ones(3), torch.zeros(3)
    Lars([{"params": [zero, still]}], lr=0.5, momentum=0.0, weight_decay=0.0, trust_coefficient=0.01).step()
    assert torch.equal(zero.detach(), torch.full((3,), -0.5))
    assert torch.equal(still.detach(), torch.ones(3))


@pytest.mark.parametrize(
    "optimizer", [{"name": "lars"}, {"name": "sgd"}, {"name": "sgd", "momentum": 0.0}, {"name": "adamw"}], ids=str
)
@pytest.mark.parametrize("skipped_step", [0, 1])
def test_a_skipped_step_leaves_parameters_and_state_as_they_were(optimizer: dict[str, object], skipped_step: int):
    results = []
    for with_skip in (False, True):
        torch.manual_seed(0)
        weight, bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))
        built = build_optimizer(_spec(optimizer=optimizer), ParameterGroups([weight], [bias]))
        set_rates(built, Schedule(0, 10, 0.0), done=0)
        for step in range(3):
            if with_skip and step == skipped_step:
                weight.grad, bias.grad = torch.full((4, 3), math.nan), torch.full((3,), math.inf)
                built.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
                built.step()
            weight.grad, bias.grad = torch.full((4, 3), 0.1), torch.full((3,), 0.2)
            built.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
            built.step()
        results.append((weight.detach(), bias.detach()))
    for plain, skipping in zip(*results, strict=True):
        assert torch.equal(plain, skipping)


def test_the_state_of_every_optimizer_survives_a_checkpoint(tmp_path):
    for name in ("lars", "sgd", "adamw"):
        weights = []
        for resumed in (False, True):
            torch.manual_seed(0)
            weight = nn.Parameter(torch.randn(4, 3))
            optimizer = build_optimizer(_spec(optimizer={"name": name}), ParameterGroups([weight], []))
            for step in range(4):
                if resumed and step == 2:
                    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
                    optimizer = build_optimizer(_spec(optimizer={"name": name}), ParameterGroups([weight], []))
                    optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
                set_rates(optimizer, Schedule(2, 4, 0.1), done=step)
                weight.grad = torch.full((4, 3), 0.1 * (step + 1))
                optimizer.step()
            weights.append(weight.detach())
        assert torch.equal(*weights), name


def test_schedule_rises_from_zero_and_ends_at_its_final_fraction():
    schedule = Schedule(warmup_steps=10, total_steps=110, final_fraction=0.001)
    assert [schedule.fraction(s) for s in (0, 5, 10)] == [0.0, 0.5, 1.0]
    assert schedule.fraction(60) == pytest.approx((1 + 0.001) / 2)
    assert schedule.fraction(110) == pytest.approx(0.001)
    falling = [schedule.fraction(s) for s in range(10, 110)]
    assert falling == sorted(falling, reverse=True)
    assert Schedule(0, 5, 0.0).fraction(0) == 1.0


def test_warm_up_is_ten_epochs_or_a_tenth_of_a_short_run_or_as_given():
    long = _spec(epochs=300, batch_size=64)
    assert schedule_of(long, steps_per_epoch=22, total_steps=6600).warmup_steps == 220
    short = _spec(epochs=20, batch_size=64)
    assert schedule_of(short, steps_per_epoch=22, total_steps=440).warmup_steps == 44
    assert schedule_of(short, steps_per_epoch=22, total_steps=50).warmup_steps == 5  # max_steps ends it first
    given = _spec(epochs=20, batch_size=64, optimizer={"name": "sgd", "warmup_epochs": 1.5})
    assert schedule_of(given, steps_per_epoch=22, total_steps=440).warmup_steps == 33


def test_rates_scale_with_the_batch_and_biases_have_their_own_in_lars():
    spec = _spec(batch_size=512, optimizer={"learning_rate": 0.2, "bias_learning_rate": 0.01})
    weight, bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    optimizer = build_optimizer(spec, ParameterGroups([weight], [bias]))
    assert set_rates(optimizer, Schedule(4, 10, 0.0), done=2) == pytest.approx(0.2 * 2 * 0.5)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.01 * 2 * 0.5)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [spec.optimizer.weight_decay, 0.0]
    assert rate_scale(_spec(batch_size=512, optimizer={"name": "sgd", "reference_batch_size": None})) == 1.0


def test_groups_of_the_paper_s_network_are_counted_by_module_type():
    """ResNet-50 has 53 convolutions and 53 BN, the projector 3 linear maps and 2 BN."""
    with torch.device("meta"):
        projector = build_projector(2048, [8192, 8192, 8192], seed=0)
    groups = parameter_groups(synchronise_batch_norm(empty_backbone(BackboneSpec(name="resnet50"))), projector)
    counts = groups.counts()
    assert counts["matrices"]["tensors"] == 56
    assert counts["others"]["tensors"] == 110
    assert counts["matrices"]["parameters"] == 23_508_032 - 53_120 + 2048 * 8192 + 2 * 8192**2
    assert counts["others"]["parameters"] == 53_120 + 4 * 8192


def test_groups_do_not_go_by_name_or_number_of_dimensions():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, 3))  # a weight of nothing in particular
            self.bn_like_name = nn.Linear(3, 1)
            self.convolution = nn.Conv1d(1, 1, 1)
            self.norm = nn.LayerNorm([2, 2])

    odd = Odd()
    groups = parameter_groups(odd)
    assert {id(p) for p in groups.matrices} == {id(odd.bn_like_name.weight), id(odd.convolution.weight)}
    assert len(groups.others) == 5
