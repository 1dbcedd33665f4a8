"""Both views with every feature at mean 0 and variance 1 over the batch of all ranks, inside autograd.

    y_bj = (z_bj - mean_j) / sqrt(Var_j + epsilon),      Var_j by N

each view by its own statistics: a batch normalisation without parameters and running statistics (Ioffe and Szegedy
2015, arXiv 1502.03167, algorithm 1). Each rank uses the statistics for its own rows, so that the backward sums over
ranks (the second case of trainer.runtime.collectives):

    dL/dz = (g - mean g - y mean(g y)) / sqrt(Var + epsilon),      g = dL/dy

Tests: tests/trainer/objectives/test_objectives_simsiam.py; several ranks: tests/support/rank_laws.py.

Shape suffixes: 2 views, n samples of this rank, d features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainer.objectives.correlation import centred_features, unit_features
from trainer.runtime import collectives


def standardised(z_a_nd: Tensor, z_b_nd: Tensor, epsilon: float = 0.0) -> Tensor:
    """(2, n, d) of this rank's rows of both views, (n, d) each, the same n on every rank; in float32, or float64 for
    float64 input. With an epsilon of 0 a feature that does not vary over the batch is 0 and passes no gradient.

    Raises:
        ValueError: the two shapes differ, or the batch has a single sample.
    """
    views_2nd: Tensor = _Standardised.apply(z_a_nd, z_b_nd, epsilon)
    return views_2nd


class _Standardised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_a_nd: Tensor, z_b_nd: Tensor, epsilon: float) -> Tensor:
        samples = z_a_nd.shape[0] * collectives.world_size()
        if epsilon:
            centred = centred_features(z_a_nd, z_b_nd)
            views_2nd, scales_2d = centred.views_2nd, (centred.squares_2d / samples + epsilon).rsqrt()
            views_2nd.mul_(scales_2d[:, None])
        else:
            views_2nd, scales_2d = unit_features(z_a_nd, z_b_nd)
            views_2nd, scales_2d = views_2nd.mul_(samples**0.5), scales_2d * samples**0.5
        ctx.save_for_backward(views_2nd, scales_2d)
        ctx.samples = samples
        ctx.dtypes = z_a_nd.dtype, z_b_nd.dtype
        return views_2nd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        views_2nd, scales_2d = ctx.saved_tensors
        (gradient_2nd,) = gradients
        shares_22d = torch.stack([gradient_2nd.sum(1), (gradient_2nd * views_2nd).sum(1)])
        mean_2d, along_2d = collectives.all_reduce_(shares_22d).div_(ctx.samples)
        inner_2nd = gradient_2nd - mean_2d[:, None] - views_2nd * along_2d[:, None]
        a_nd, b_nd = inner_2nd.mul_(scales_2d[:, None])
        return a_nd.to(ctx.dtypes[0]), b_nd.to(ctx.dtypes[1]), None
