"""A loss of the embeddings of both views whose gradient is made together with it.

Shape suffixes: 2 views, n images of this rank, d features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LossOfBothViews(torch.autograd.Function):
    """Base of such losses. `forward` is given the embeddings of view a and of view b first, leaves the gradient to
    `keep_gradient`, and returns the loss, a scalar, before what else it tells."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_2nd,) = ctx.saved_tensors
        a_nd, b_nd = gradients[0] * gradient_2nd
        others = [None] * (len(ctx.needs_input_grad) - 2)
        return a_nd.to(ctx.dtypes[0]), b_nd.to(ctx.dtypes[1]), *others


def keep_gradient(ctx: Any, gradient_2nd: Tensor, z_a_nd: Tensor, z_b_nd: Tensor, *told: Tensor) -> None:
    """Keep the gradient of a loss for `backward`; what is told beside the loss carries none."""
    ctx.save_for_backward(gradient_2nd)
    ctx.dtypes = z_a_nd.dtype, z_b_nd.dtype
    ctx.mark_non_differentiable(*told)
