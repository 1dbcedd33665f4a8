"""The Barlow Twins objective and the parts of it that are worth watching."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainer.objectives.correlation import cross_correlation
from trainer.runtime import collectives


@dataclass(frozen=True, slots=True)
class BarlowTwinsTerms:
    """The loss and its parts; every tensor but `correlation` (d, d) is a scalar. Only `loss` carries a gradient."""

    loss: Tensor
    on_diagonal: Tensor
    off_diagonal: Tensor
    off_diagonal_excess: Tensor
    correlation_diagonal_mean: Tensor
    correlation_off_diagonal_rms: Tensor
    correlation: Tensor
    noise_floor: float


def barlow_twins(z_a_nd: Tensor, z_b_nd: Tensor, lambda_: float) -> BarlowTwinsTerms:
    """sum_i (1 - C_ii)^2 + lambda * sum_{i != j} C_ij^2 over the global batch (document 000, equation 3).

    `z_a_nd`, `z_b_nd`: this rank's embeddings of the two views, (n, d), the same n on every rank.
    `off_diagonal` is the plain sum, without lambda; `off_diagonal_excess` = lambda * (off_diagonal - noise_floor) is
    what is comparable across batch sizes, and may be negative.
    """
    correlation_dd = cross_correlation(z_a_nd, z_b_nd)
    features = correlation_dd.shape[0]
    diagonal_d = correlation_dd.diagonal()
    on_diagonal = (1 - diagonal_d).square().sum()
    off_diagonal = correlation_dd.square().sum() - diagonal_d.square().sum()
    loss = on_diagonal + lambda_ * off_diagonal
    floor = noise_floor(features, samples=z_a_nd.shape[0] * collectives.world_size())
    # The difference above may end a rounding below 0 when nothing is off the diagonal.
    off_diagonal = off_diagonal.detach().clamp(min=0)
    return BarlowTwinsTerms(
        loss=loss,
        on_diagonal=on_diagonal.detach(),
        off_diagonal=off_diagonal,
        off_diagonal_excess=lambda_ * (off_diagonal - floor),
        correlation_diagonal_mean=diagonal_d.detach().mean(),
        correlation_off_diagonal_rms=(off_diagonal / max(1, features * (features - 1))).sqrt(),
        correlation=correlation_dd.detach(),
        noise_floor=floor,
    )


def noise_floor(features: int, samples: int) -> float:
    """Expected off_diagonal of independent features: d (d - 1) / (N - 1), as E[r^2] = 1 / (N - 1) (DESIGN 7.4)."""
    return features * (features - 1) / (samples - 1)
