"""From the spec to an optimiser: LARS (trainer.optim.lars), or torch's SGD or AdamW.

With gradient g, rate lr and weight decay d, the others decayed by 0:

    SGD    v = momentum v + g + d p;   p = p - lr v          (with nesterov: p - lr (g + d p + momentum v))
    AdamW  m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2
           p = p - lr d p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + 1e-8)

Sources: Sutskever et al. 2013 as torch.optim.SGD states it; AdamW arXiv 1711.05101, algorithm 2, with torch's decay
lr d. Tests: tests/trainer/optim/test_optim_lars.py (rates, groups, state, a step that is skipped), and over ranks
tests/trainer/runtime/test_runtime_ranks.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs import AdamwSpec, LarsSpec, PretrainSpec
from trainer.optim.eager import AdamW, Sgd
from trainer.optim.groups import ParameterGroups
from trainer.optim.lars import Lars
from trainer.optim.schedules import Schedule, rate_scale


def build_optimizer(spec: PretrainSpec, groups: ParameterGroups) -> torch.optim.Optimizer:
    """The optimiser over two groups, each with its `peak_lr`; every rate starts at 0 until `set_rates`. Two more, of
    the constant parameters, where there are any.

    All of them leave parameters and state alone where their attribute `found_inf`, a device scalar, is 1.
    """
    given, scale = spec.optimizer, rate_scale(spec)
    peak = given.learning_rate * scale
    others_peak = given.bias_learning_rate * scale if isinstance(given, LarsSpec) else peak
    split = [
        {"params": groups.matrices, "peak_lr": peak},
        {"params": groups.others, "peak_lr": others_peak, "weight_decay": 0.0},
    ]
    if groups.constant_matrices or groups.constant_others:
        of_constant = groups.constant_matrices, groups.constant_others
        split += [{**like, "params": own, "constant": True} for like, own in zip(split, of_constant, strict=True)]
    if isinstance(given, LarsSpec):
        for others in split[1::2]:
            others["adapted"] = False
        return Lars(
            split,
            lr=0.0,
            momentum=given.momentum,
            weight_decay=given.weight_decay,
            trust_coefficient=given.trust_coefficient,
        )
    # Only torch's fused optimisers read found_inf.
    if isinstance(given, AdamwSpec):
        return AdamW(split, lr=0.0, betas=given.betas, weight_decay=given.weight_decay, fused=True)
    sgd = Sgd(
        split,
        lr=0.0,
        momentum=given.momentum,
        nesterov=given.nesterov,
        weight_decay=given.weight_decay,
        fused=True,
    )
    if given.momentum:
        # A first step skipped by found_inf would leave the buffers as uninitialised memory.
        for parameter in (parameter for group in sgd.param_groups for parameter in group["params"]):
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a state_dict of the same optimiser, in the memory layout that the parameters have here.

    It may come from a device where they lie otherwise, and the fused updates read both in one order.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, done: int) -> float:
    """Set every group's rate for the update after `done` finished ones, a constant one's to its peak; returns the rate
    of the matrices."""
    fraction = schedule.fraction(done)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * (1.0 if group.get("constant") else fraction)
    rate: float = optimizer.param_groups[0]["lr"]
    return rate
