"""LARS: layer-wise adaptive rate scaling (arXiv 1708.03888), with the arithmetic of the Barlow Twins reference.

Tests: tests/trainer/optim/test_optim_lars.py; the bits against a plain loop in test_optim_lars_bits.py beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from trainer.optim.eager import eager


@eager
class Lars(torch.optim.Optimizer):
    """For a parameter p of an adapted group, with gradient g:

        g' = g + weight_decay * p
        q  = trust_coefficient * |p| / |g'|      (1 where either norm is 0)
        v  = momentum * v + q * g'
        p  = p - lr * v

    A group with `adapted: False` takes q = 1. There is no epsilon, and the rate is applied to v, not folded into it:
    the other LARS in circulation differ in both. Nothing is read back to the host. Source: class LARS of
    facebookresearch/barlowtwins, main.py; in float32 on a CPU the bits are those of its loop over the tensors (in a
    tensor whose length no vector of the processor divides, the last few numbers may differ in their last bit).

    Like torch's fused optimisers it leaves parameters and momentum alone where the tensor attribute `found_inf` is 1.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        trust_coefficient: float,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapted": True,
        }
        super().__init__(params, defaults)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients in place; every parameter of a group has one."""
        for group in self.param_groups:
            parameters: list[Tensor] = group["params"]
            if not parameters:
                continue
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            updates = [g for p in parameters if (g := p.grad) is not None]
            if group["weight_decay"]:
                updates = list(torch._foreach_add(updates, parameters, alpha=group["weight_decay"]))
            if group["adapted"]:
                ratios = _trust_ratios(parameters, updates, group["trust_coefficient"])
                updates = list(torch._foreach_mul(updates, ratios))
            # The last two lines of the formula are those of SGD, in one pass over the memory.
            sgd(
                parameters,
                updates,
                [self.state[p]["momentum_buffer"] for p in parameters],
                fused=True,
                found_inf=self.found_inf,
                weight_decay=0.0,
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )


def _trust_ratios(parameters: list[Tensor], updates: list[Tensor], coefficient: float) -> list[Tensor]:
    parameter_norms = torch.stack(torch._foreach_norm(parameters))
    update_norms = torch.stack(torch._foreach_norm(updates))
    usable = (parameter_norms > 0) & (update_norms > 0)
    # Not torch.where: it would send the number to a GPU, and wait.
    ratios = coefficient * parameter_norms / update_norms.masked_fill(~usable, 1.0)
    return list(ratios.masked_fill(~usable, 1.0).unbind())
