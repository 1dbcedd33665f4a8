"""The momentum copy of a network: its parameters follow those of the network, its running statistics are its own.

Source: the momentum update of MoCo (He et al. 2020, arXiv 1911.05722, equation 2). Tests:
tests/trainer/objectives/test_objectives_contract.py.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trainer.runtime.batch_norm import RunningStatistics


class MomentumNetwork:
    """A copy of a backbone and its projector, p' ← momentum p' + (1 - momentum) p after each step.

    It is called in training mode: batch normalisation is by the batch of all ranks, as the network has it.
    """

    def __init__(self, network: nn.ModuleDict, momentum: float) -> None:
        """`network` is on its device, in its dtype, and has no gradients yet."""
        self.module = copy.deepcopy(network).requires_grad_(False)
        self._parameters: list[Tensor] = [*self.module.parameters()]
        self._followed: list[Tensor] = [*network.parameters()]
        self._share = 1 - momentum
        self._statistics = RunningStatistics(self.module)
        self._statistics_before = self._statistics.flat.clone()

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, S, S) → embeddings (n, d), and the features (n, F) that they come of."""
        self._statistics_before.copy_(self._statistics.flat)
        features: Tensor = self.module["backbone"](pixels)
        embeddings: Tensor = self.module["projector"](features)
        return embeddings, features.detach()

    @torch.no_grad()
    def follow(self, good: Tensor) -> None:
        """Take up the network's step; where the boolean scalar `good` is false there was none, and the running
        statistics go back. The host waits for nothing."""
        self._statistics.restore_unless(good, self._statistics_before)
        share = good.to(self._parameters[0].dtype) * self._share
        towards = torch._foreach_sub(self._followed, self._parameters)
        torch._foreach_mul_(towards, share)
        torch._foreach_add_(self._parameters, list(towards))
