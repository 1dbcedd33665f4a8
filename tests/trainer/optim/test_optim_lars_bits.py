"""LARS against a plain statement of the reference's arithmetic: the same bits in float32, tensor for tensor."""

import torch
from torch import Tensor, nn

from barlow_lab.specs import BackboneSpec
from trainer.models.backbones import build_backbone
from trainer.models.projector import build_projector
from trainer.optim.groups import parameter_groups
from trainer.optim.lars import Lars

MOMENTUM, WEIGHT_DECAY, TRUST = 0.9, 4.8e-5, 0.001
STEPS = 4


def reference_step(p: Tensor, g: Tensor, v: Tensor, rate: float, adapted: bool) -> None:
    """One tensor of class LARS in facebookresearch/barlowtwins, line for line, in place."""
    if adapted:
        g = g.add(p, alpha=WEIGHT_DECAY)
        p_norm, g_norm = torch.norm(p), torch.norm(g)
        one = torch.ones_like(p_norm)
        g = g.mul(torch.where(p_norm > 0.0, torch.where(g_norm > 0, TRUST * p_norm / g_norm, one), one))
    v.mul_(MOMENTUM).add_(g)
    p.add_(v, alpha=-rate)


def test_lars_has_the_bits_of_the_reference_on_the_tensors_of_a_resnet():
    backbone = build_backbone(BackboneSpec(name="resnet18"), seed=0)  # zero_init_residual: some |p| are 0
    groups = parameter_groups(nn.Sequential(backbone, build_projector(512, [96, 96, 96], seed=0)))
    parameters = [*groups.matrices, *groups.others]
    adapted = [True] * len(groups.matrices) + [False] * len(groups.others)
    expected = [p.detach().clone() for p in parameters]
    velocities = [torch.zeros_like(p) for p in expected]
    optimizer = Lars(
        [{"params": groups.matrices}, {"params": groups.others, "adapted": False, "weight_decay": 0.0}],
        lr=0.0, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, trust_coefficient=TRUST,
    )  # fmt: skip
    optimizer.found_inf = torch.zeros(())  # as every step of the trainer sets it
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        rates = 0.3 * (step + 1), 0.005 * (step + 1)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for p in parameters:
            p.grad = 0.01 * torch.randn(p.shape, generator=generator)
        parameters[3].grad = torch.zeros_like(parameters[3])
        for p, q, v, is_adapted in zip(parameters, expected, velocities, adapted, strict=True):
            assert p.grad is not None
            reference_step(q, p.grad, v, rates[0 if is_adapted else 1], is_adapted)
        optimizer.step()
    for p, q, v in zip(parameters, expected, velocities, strict=True):
        assert torch.equal(p.detach(), q)
        assert torch.equal(optimizer.state[p]["momentum_buffer"], v)


def test_in_tensors_that_no_vector_divides_a_step_is_one_last_place_off_at_most():
    generator = torch.Generator().manual_seed(0)
    for length in (1, 3, 7, 17, 100, 1001):
        p = nn.Parameter(torch.randn(length, generator=generator))
        expected, velocity = p.detach().clone(), torch.zeros(length)
        optimizer = Lars(
            [{"params": [p]}], lr=0.3, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, trust_coefficient=TRUST
        )
        optimizer.found_inf = torch.zeros(())
        for _ in range(STEPS):
            p.grad = 0.01 * torch.randn(length, generator=generator)
            reference_step(expected, p.grad, velocity, 0.3, adapted=True)
            optimizer.step()
        apart = (p.detach().view(torch.int32) - expected.view(torch.int32)).abs().max()
        assert apart <= STEPS, length
