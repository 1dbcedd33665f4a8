"""LARS: layer-wise adaptive rate scaling (arXiv 1708.03888), with the arithmetic of the Barlow Twins reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Lars(torch.optim.Optimizer):
    """For a parameter p of an adapted group, with gradient g:

        g' = g + weight_decay * p
        q  = trust_coefficient * |p| / |g'|      (1 where either norm is 0)
        v  = momentum * v + q * g'
        p  = p - lr * v

    A group with `adapted: False` takes q = 1. There is no epsilon, and the rate is applied to v, not folded into it:
    the other LARS in circulation differ in both. Nothing is read back to the host.

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

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients in place; every parameter of a group has one."""
        for group in self.param_groups:
            parameters: list[Tensor] = group["params"]
            if not parameters:
                continue
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            velocities = [self.state[p]["momentum_buffer"] for p in parameters]
            gradients = [g for p in parameters if (g := p.grad) is not None]
            updates = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
            if group["adapted"]:
                torch._foreach_mul_(updates, _trust_ratios(parameters, updates, group["trust_coefficient"]))
            torch._foreach_add_(updates, velocities, alpha=group["momentum"])
            moved = torch._foreach_add(parameters, updates, alpha=-group["lr"])
            self._keep(velocities, updates)
            self._keep(parameters, moved)

    def _keep(self, old: list[Tensor], new: Iterable[Tensor]) -> None:
        """old = new, unless found_inf says that new is not to be trusted."""
        if self.found_inf is None:
            torch._foreach_copy_(old, list(new))
            return
        skip = self.found_inf > 0
        for before, after in zip(old, new, strict=True):
            before.copy_(torch.where(skip, before, after))


def _trust_ratios(parameters: list[Tensor], updates: Iterable[Tensor], coefficient: float) -> list[Tensor]:
    parameter_norms = torch.stack(torch._foreach_norm(parameters))
    update_norms = torch.stack(torch._foreach_norm(list(updates)))
    usable = (parameter_norms > 0) & (update_norms > 0)
    ratios = coefficient * parameter_norms / torch.where(usable, update_norms, 1.0)
    return list(torch.where(usable, ratios, 1.0).unbind())
