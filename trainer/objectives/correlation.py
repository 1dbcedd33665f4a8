"""The normalisation that makes a product of two views their correlation, and what chance alone leaves of one.

Source: C_ij = sum_b x_bi y_bj / sqrt(sum_b x_bi^2 sum_b y_bj^2) of the centred embeddings x, y of two views, b running
over the batch of all ranks (Zbontar et al. 2021, arXiv 2103.03230, equation 2).
With each feature of each view centred and scaled to length 1 over that batch, C is their plain product.
Tests: tests/trainer/objectives/test_objectives_laws.py; for several ranks `objective` in tests/support/rank_laws.py.
Shape suffixes: 2 views, n samples of this rank, d features, w ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.runtime import collectives


def unit_features(z_a_nd: Tensor, z_b_nd: Tensor, *, over_ranks: bool = True) -> tuple[Tensor, Tensor]:
    """This rank's rows of both views, centred and scaled to features of length 1; outside autograd.

    Returns (2, n, d) and the scales (2, d): 1 / sqrt(sum of squares) of each view's own centred feature over the batch
    of all ranks (`over_ranks`; every rank calls this, with the same n), or over these rows alone. In float32, or
    float64 for float64 input. A feature that does not vary over the batch has scale 0 and is 0: it correlates with
    nothing, and passes no gradient.

    Raises:
        ValueError: the two shapes differ, or the batch has a single sample.
    """
    centred = centred_features(z_a_nd, z_b_nd, over_ranks=over_ranks)
    scales_2d = inverse_lengths(centred.squares_2d, centred.means_2d, centred.samples)
    return centred.views_2nd.mul_(scales_2d[:, None]), scales_2d


def noise_floor(features: int, samples: int) -> float:
    """Expected sum of the squares off the diagonal of C, of independent features: d (d - 1) / (N - 1), as
    E[r^2] = 1 / (N - 1)."""
    return features * (features - 1) / (samples - 1)


@dataclass(frozen=True, slots=True)
class CentredFeatures:
    """This rank's rows of both views without their features' means over the batch: `views_2nd`; `means_2d`, and the
    sums of squares of the centred features, `squares_2d`, over its `samples`. Constants to autograd: what is to have a
    gradient is built from the embeddings, as docs/adding-an-objective.md shows."""

    views_2nd: Tensor
    means_2d: Tensor
    squares_2d: Tensor
    samples: int


def centred_features(z_a_nd: Tensor, z_b_nd: Tensor, *, over_ranks: bool = True) -> CentredFeatures:
    """The features of both views, (n, d) each, centred over the batch of all ranks (`over_ranks`; every rank calls
    this, with the same n), or over these rows alone; outside autograd, in float32, or float64 for float64 input.

    Raises:
        ValueError: the two shapes differ, or the batch has a single sample.
    """
    if z_a_nd.shape != z_b_nd.shape or z_a_nd.ndim != 2:
        raise ValueError(f"two (n, d) embeddings are needed, not {tuple(z_a_nd.shape)} and {tuple(z_b_nd.shape)}")
    rows = z_a_nd.shape[0]
    samples = rows * (collectives.world_size() if over_ranks else 1)
    if samples < 2:
        raise ValueError("a correlation needs at least 2 samples; raise batch_size")
    dtype = torch.promote_types(z_a_nd.dtype, torch.float32)
    views_2nd = torch.stack([z_a_nd.detach().to(dtype), z_b_nd.detach().to(dtype)])
    means_2d = views_2nd.mean(1)
    squares_2d = (views_2nd - means_2d[:, None]).square().sum(1)
    if over_ranks:
        # Joined without cancellation (Chan, Golub, LeVeque 1979), in one collective.
        means_w2d, squares_w2d = collectives.all_gather(torch.stack([means_2d, squares_2d])).unbind(1)
        means_2d = means_w2d.mean(0)
        squares_2d = squares_w2d.sum(0) + rows * (means_w2d - means_2d).square().sum(0)
    return CentredFeatures(views_2nd.sub_(means_2d[:, None]), means_2d, squares_2d, samples)


def inverse_lengths(squares_2d: Tensor, means_2d: Tensor, samples: int) -> Tensor:
    """1 / sqrt(sum of squares) per view and feature; 0 for a feature that is constant up to rounding of its mean."""
    rounding_2d = 8 * torch.finfo(means_2d.dtype).eps * means_2d.abs() + torch.finfo(means_2d.dtype).tiny ** 0.5
    varies = squares_2d > samples * rounding_2d.square()
    # Not torch.where: it would send the number to a GPU, and wait.
    return squares_2d.rsqrt().masked_fill(~varies, 0.0)
