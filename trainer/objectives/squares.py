"""The Barlow Twins loss by squares, of the matrix C that a normalisation makes (trainer.objectives.normalisations).

    L = sum_i (1 - C_ii)^2 + lambda * sum_{i != j} R_ij^2

Source: Zbontar et al. 2021 (arXiv 2103.03230), equation 1, where R is C. Its appendix A derives the second term of the
auto-correlation of one of the twin networks, and says of both in practice what section 5.2 says: no strong difference.
With X, Y the rescaled views: C = X^T Y; R is C (`cross`), X^T X (`auto_a`), or that and Y^T Y, of which the mean of the
two sums is taken (`auto`). One term may be left out (section 4 there, loss function ablations).

Shape suffixes: 2 views, n samples of this rank, d features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs.loss_form import rows_of_a_shard
from barlow_lab.specs.objectives import BarlowTwinsSpec
from trainer.objectives.both_views import LossOfBothViews, keep_gradient
from trainer.objectives.normalisations import rescaled
from trainer.objectives.products import OffDiagonal, dual, in_rows
from trainer.runtime import collectives


class Squares(LossOfBothViews):
    """L, C_ii and the sum of R_ij^2 over i != j; L's gradient is made with it, from the same products.

    With O = R without its diagonal,

        dL/dX = 2 lambda Y O^T - 2 Y diag(1 - C_ii)        of `cross`,
        dL/dX = 4 lambda X O   - 2 Y diag(1 - C_ii)        of `auto_a`; of `auto` 2 lambda in both views,

    and by symmetry for Y. <X, dL/dX> per feature is 2 lambda sum_j O_ij^2 (4 and 2 of the others) - 2 (1 - C_ii) C_ii,
    which every rank has. So the backward needs no collective.
    """

    @staticmethod
    def forward(ctx: Any, z_a_nd: Tensor, z_b_nd: Tensor, spec: BarlowTwinsSpec) -> tuple[Tensor, Tensor, Tensor]:
        views = rescaled(z_a_nd, z_b_nd, spec.normalisation, spec.factor)
        views_2nd = views.views_2nd
        off, off_diagonal, weight = _second_term(views_2nd, spec)
        missing_d = 1 - off.diagonal_d
        if spec.terms == "off_diagonal":
            missing_d = torch.zeros_like(missing_d)
        loss = missing_d.square().sum() + spec.lambda_ * off_diagonal

        pull_d = -2 * missing_d
        gradient_2nd = off.products_2nd.mul_(weight * spec.lambda_).addcmul_(views_2nd.flip(0), pull_d)
        along_2d = weight * spec.lambda_ * off.energy_2d + pull_d * off.diagonal_d
        keep_gradient(ctx, views.back(gradient_2nd, along_2d), z_a_nd, z_b_nd, off.diagonal_d, off_diagonal)
        return loss, off.diagonal_d, off_diagonal


def _second_term(views_2nd: Tensor, spec: BarlowTwinsSpec) -> tuple[OffDiagonal, Tensor, float]:
    """C_ii with the products and energies of R, its sum of squares, and by what lambda counts in the gradient."""
    if spec.terms != "on_diagonal" and spec.redundancy == "cross":
        off = _products(views_2nd, spec)
        return off, off.energy_2d[0].sum(), 2.0
    x_nd, y_nd = views_2nd
    diagonal_d = collectives.all_reduce_((x_nd * y_nd).sum(0))
    energy_2d, products_2nd = torch.zeros_like(views_2nd[:, 0]), torch.zeros_like(views_2nd)
    own = 0 if spec.terms == "on_diagonal" else 2 if spec.redundancy == "auto" else 1
    for view in range(own):
        off = _products(views_2nd[view].expand_as(views_2nd), spec)
        energy_2d[view], products_2nd[view] = off.energy_2d[0], off.products_2nd[0]
    return OffDiagonal(diagonal_d, energy_2d, products_2nd), energy_2d.sum() / max(own, 1), 4.0 / max(own, 1)


def _products(views_2nd: Tensor, spec: BarlowTwinsSpec) -> OffDiagonal:
    ranks = collectives.world_size()
    _, rows, features = views_2nd.shape
    form = spec.form_taken(samples=rows * ranks, features=features, ranks=ranks)
    if form == "dual":
        return dual(views_2nd)
    return in_rows(views_2nd, features if form == "direct" else rows_of_a_shard(features, ranks))
