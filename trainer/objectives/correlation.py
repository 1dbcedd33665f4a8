"""The cross-correlation matrix of two views over the global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.runtime import collectives


def cross_correlation(z_a_nd: Tensor, z_b_nd: Tensor) -> Tensor:
    """Pearson correlation of every feature of view a with every feature of view b: (n, d), (n, d) -> (d, d).

    C_ij = sum_b x_bi y_bj / sqrt(sum_b x_bi^2 sum_b y_bj^2) with x, y centred by their own means, and b running over
    the batch of all ranks (document 000, equation 2; DESIGN 7.1). Every rank gets the same matrix, and the gradient
    is the true one of the global batch (the convention of trainer.runtime.collectives).

    Computed in float32 outside autocast, in float64 for float64 input. A feature that does not vary over the batch
    correlates with nothing: its row (column) is 0 and passes no gradient.

    Raises:
        ValueError: the two shapes differ, or the global batch has a single sample.
    """
    if z_a_nd.shape != z_b_nd.shape or z_a_nd.ndim != 2:
        raise ValueError(f"two (n, d) embeddings are needed, not {tuple(z_a_nd.shape)} and {tuple(z_b_nd.shape)}")
    samples = z_a_nd.shape[0] * collectives.world_size()
    if samples < 2:
        raise ValueError("a correlation needs at least 2 samples; raise batch_size")
    features = z_a_nd.shape[1]
    with torch.autocast(z_a_nd.device.type, enabled=False):
        dtype = torch.promote_types(z_a_nd.dtype, torch.float32)
        views_2nd = torch.stack([z_a_nd.to(dtype), z_b_nd.to(dtype)])
        # The means are constants to autograd: moving a mean by e changes each sum below by e times a sum of centred
        # values, which is 0, so the gradient through them vanishes identically.
        means_2d = collectives.all_reduce_(views_2nd.detach().sum(1)) / samples
        x_nd, y_nd = (views_2nd - means_2d[:, None]).unbind()
        # One collective for the products and the squares.
        shares = torch.cat([(x_nd.mT @ y_nd).flatten(), x_nd.square().sum(0), y_nd.square().sum(0)])
        products, squares = torch.split(collectives.sum_of_shares(shares), [features * features, 2 * features])
        scale_a_d, scale_b_d = _inverse_norms(squares.view(2, features), means_2d, samples)
        correlation_dd: Tensor = scale_a_d[:, None] * products.view(features, features) * scale_b_d
        return correlation_dd


def _inverse_norms(squares_2d: Tensor, means_2d: Tensor, samples: int) -> Tensor:
    """1 / sqrt(sum of squares) per view and feature; 0 for a feature that is constant up to rounding of its mean."""
    rounding_2d = 8 * torch.finfo(means_2d.dtype).eps * means_2d.abs() + torch.finfo(means_2d.dtype).tiny ** 0.5
    varies = squares_2d.detach() > samples * rounding_2d.square()
    # Masked before the root: its infinite slope at 0 would turn the masked gradient into 0 * inf.
    return torch.where(varies, torch.where(varies, squares_2d, 1.0).rsqrt(), 0.0)
