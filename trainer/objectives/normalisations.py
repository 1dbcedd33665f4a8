"""The three matrices of two views that the Barlow Twins variants ask to be the identity, and the way back through them.

    pearson    C_ij = sum_b x_bi y_bj / (|x_i| |y_j|)            x, y centred over the batch
    none       C_ij = 1/N sum_b x_bi y_bj                        x, y centred over the batch
    feature    C_ij = factor/N sum_b u_bi v_bj                   u, v rows of length 1 of standardised features

Sources: Zbontar et al. 2021 (arXiv 2103.03230), equation 2, and its section 4, loss function ablations. For `feature`
a batch normalisation comes first there, then every row is scaled to length 1, then the products are taken as they are.
The trace of that matrix is at most 1 without a factor, so that it cannot come near the identity of d features: their
invariance term stays at d (1 - 1/d)^2 or more. What the paper multiplied with is not published; d makes 1 reachable.
`none` is equation 3 of "Why Barlow Twins work: the critical role of normalization" (2024, openreview ZINaxJyoQr), with
two things that it leaves out: the mean, without which C is no covariance, and 1/N, without which the identity would
mean sum_b x_bi^2 = 1 and embeddings that shrink as the batch grows. With it, it means variance 1. (The second norm of
equation 1 there has the index i where it means j.)

Each is X^T Y of rescaled views X, Y. With P = dL/dX the way back is dL/dz = scale * P, and for `pearson`, whose scale
depends on z, scale * (P - X <X, P>), with <X, P> per feature over all ranks' rows. Through the means goes nothing:
moving one by e changes each product by e times a sum of centred values.
Tests: tests/trainer/objectives/test_barlow_twins_variants.py; several ranks: tests/support/rank_laws.py.

Shape suffixes: 2 views, n samples of this rank, d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from barlow_lab.specs.objectives.barlow_twins import Normalisation
from trainer.objectives.correlation import centred_features, unit_features
from trainer.objectives.standardised import standardised
from trainer.runtime import collectives


@dataclass(frozen=True, slots=True)
class Rescaled:
    """This rank's rows X, Y of both views: `views_2nd`, and what they were multiplied by; outside autograd."""

    views_2nd: Tensor
    scales_2d: Tensor
    scales_depend: bool
    """Whether the scales are of the views' own lengths."""

    def back(self, gradient_2nd: Tensor, along_2d: Tensor) -> Tensor:
        """dL/dz of dL/dX (in place), with <X, dL/dX> per feature over all ranks' rows, which every rank has."""
        if self.scales_depend:
            gradient_2nd.addcmul_(self.views_2nd, along_2d[:, None], value=-1)
        return gradient_2nd.mul_(self.scales_2d[:, None])


def rescaled(z_a_nd: Tensor, z_b_nd: Tensor, normalisation: Normalisation, factor: float | None) -> Rescaled:
    """X and Y; with `feature`, of what `unit_rows` gives.

    Raises:
        ValueError: the two shapes differ, or the batch has a single sample.
    """
    if normalisation == "pearson":
        return Rescaled(*unit_features(z_a_nd, z_b_nd), scales_depend=True)
    samples = z_a_nd.shape[0] * collectives.world_size()
    if normalisation == "none":
        views_2nd, by = centred_features(z_a_nd, z_b_nd).views_2nd, samples**-0.5
    else:
        factor = float(z_a_nd.shape[1]) if factor is None else factor
        views_2nd, by = torch.stack([z_a_nd.detach(), z_b_nd.detach()]), (factor / samples) ** 0.5
    scales_2d = torch.full_like(views_2nd[:, 0], by)
    return Rescaled(views_2nd.mul_(by), scales_2d, scales_depend=False)


def unit_rows(z_a_nd: Tensor, z_b_nd: Tensor) -> tuple[Tensor, Tensor]:
    """Both views with features standardised over the batch of all ranks, then rows of length 1; inside autograd."""
    a_nd, b_nd = F.normalize(standardised(z_a_nd, z_b_nd), dim=2).unbind()
    return a_nd, b_nd
