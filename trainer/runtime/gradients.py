"""The gradient of all parameters as one tensor, summed over ranks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainer.runtime import collectives


class Gradients:
    """Every parameter's `.grad` is a view of one flat tensor: one collective and one norm for all of them."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        """The parameters lie on their device, in one dtype, and require a gradient."""
        every = list(parameters)
        first = every[0]
        assert all(p.requires_grad and p.dtype == first.dtype and p.device == first.device for p in every)
        self._flat = torch.zeros(sum(p.numel() for p in every), dtype=first.dtype, device=first.device)
        for parameter, share in zip(every, torch.split(self._flat, [p.numel() for p in every]), strict=True):
            # The layout is the parameter's: an update that reads both in one order is one kernel, and faster.
            parameter.grad = share.as_strided(parameter.shape, parameter.stride())

    def clear(self) -> None:
        """Zero, before a backward pass."""
        self._flat.zero_()

    def reduce(self, scale: Tensor | None) -> Tensor:
        """Turn each rank's shares, of a loss that was multiplied by `scale`, into the true gradient, and return its
        norm (scalar, the same on every rank)."""
        collectives.all_reduce_(self._flat)
        if scale is not None:
            self._flat.div_(scale)
        norm: Tensor = torch.linalg.vector_norm(self._flat)
        return norm
