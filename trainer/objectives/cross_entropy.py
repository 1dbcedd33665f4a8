"""The Barlow Twins paper's loss by cross-entropies, in the place of the squares.

    L = - log sum_i e^{C_ii / tau} + lambda * log sum_{i != j} e^{max(R_ij, 0) / tau}

Source: Zbontar et al. 2021 (arXiv 2103.03230), section 4, loss function ablations; neither its tau nor its lambda is
published. C and R as in trainer.objectives.squares; with R of both views, the mean of the two logarithms.
The matrices are whole on every rank: the logarithm is of a sum over all of their entries.

Shape suffixes: 2 views, n samples of this rank, d features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs.objectives import BarlowTwinsSpec
from trainer.objectives.both_views import LossOfBothViews, keep_gradient
from trainer.objectives.normalisations import rescaled
from trainer.runtime import collectives


class CrossEntropy(LossOfBothViews):
    """L, its two terms without lambda, and C_ii; L's gradient is made with it.

    With G = dL/dC and W = dL/dR as if R were no function of C,

        dL/dX = Y (G + W)^T     of `cross`,           dL/dX = Y G^T + 2 X W     of the others,
        G_ii = - softmax_i(C_ii / tau) / tau,         G_ij = 0 for i != j
        W_ij = lambda / tau [R_ij > 0] softmax_ij(max(R_ij, 0) / tau) for i != j,         W_ii = 0

    and <X, dL/dX> per feature is the sum over j of what stands before X or Y times C_ij or R_ij.
    """

    @staticmethod
    def forward(
        ctx: Any, z_a_nd: Tensor, z_b_nd: Tensor, spec: BarlowTwinsSpec
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        temperature = spec.temperature
        assert temperature is not None
        views = rescaled(z_a_nd, z_b_nd, spec.normalisation, spec.factor)
        x_nd, y_nd = views.views_2nd
        gradient_2nd = torch.zeros_like(views.views_2nd)
        along_2d = torch.zeros_like(gradient_2nd[:, 0])
        diagonal_d = collectives.all_reduce_((x_nd * y_nd).sum(0))
        on_diagonal, off_diagonal = diagonal_d.new_zeros(2).unbind()
        if spec.terms != "off_diagonal":
            on_diagonal = -(diagonal_d / temperature).logsumexp(0)
            pull_d = (diagonal_d / temperature).softmax(0) / -temperature
            gradient_2nd.addcmul_(views.views_2nd.flip(0), pull_d)
            along_2d += pull_d * diagonal_d
        if spec.terms != "on_diagonal":
            pairs = {"cross": [(0, 1)], "auto_a": [(0, 0)], "auto": [(0, 0), (1, 1)]}[spec.redundancy]
            for one, other in pairs:
                left_nd, right_nd = views.views_2nd[one], views.views_2nd[other]
                matrix_dd = collectives.all_reduce_(left_nd.mT @ right_nd)
                logarithm, weights_dd = _off_diagonal(matrix_dd, temperature)
                off_diagonal = off_diagonal + logarithm / len(pairs)
                weights_dd.mul_(spec.lambda_ / len(pairs))
                gradient_2nd[one].addmm_(right_nd, weights_dd.mT)
                gradient_2nd[other].addmm_(left_nd, weights_dd)
                weights_dd.mul_(matrix_dd)
                along_2d[one] += weights_dd.sum(1)
                along_2d[other] += weights_dd.sum(0)
        loss = on_diagonal + spec.lambda_ * off_diagonal
        keep_gradient(ctx, views.back(gradient_2nd, along_2d), z_a_nd, z_b_nd, on_diagonal, off_diagonal, diagonal_d)
        return loss, on_diagonal, off_diagonal, diagonal_d


def _off_diagonal(matrix_dd: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The logarithm, and its derivative with respect to every entry; 0 on the diagonal."""
    shares_dd = matrix_dd.clamp(min=0).div_(temperature)
    shares_dd.fill_diagonal_(-torch.inf)
    logarithm = shares_dd.flatten().logsumexp(0)
    shares_dd.sub_(logarithm).exp_().div_(temperature)
    return logarithm, shares_dd.masked_fill_(matrix_dd <= 0, 0.0)
