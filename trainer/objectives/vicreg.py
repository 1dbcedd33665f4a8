"""The VICReg objective: variance, invariance, covariance.

    L = invariance * mean_{b,j} (a_bj - b_bj)^2 + variance * (v(a) + v(b)) / 2 + covariance * (c(a) + c(b))
    v(z) = mean_j max(0, 1 - sqrt(Var z_j + epsilon)),    c(z) = 1/d sum_{i != j} Cov(z_i, z_j)^2

with variances and covariances over the batch of all ranks, by N - 1. Source: Bardes, Ponce, LeCun 2022 (arXiv
2105.04906), section 4.1, in the form of its reference code (facebookresearch/vicreg, main_vicreg.py): the distance is
a mean over the d features as well, and v the mean of the two views.
Tests: tests/trainer/objectives/test_objectives_vicreg.py, and for several ranks `vicreg` in tests/support/rank_laws.py.

Shape suffixes: 2 views, N samples of all ranks, n of this one, d features, r of them in a shard.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs.loss_form import rows_held
from barlow_lab.specs.objectives import VicregSpec
from trainer.objectives.base import Objective, Terms
from trainer.objectives.both_views import LossOfBothViews, keep_gradient
from trainer.objectives.correlation import centred_features
from trainer.runtime import collectives


class Vicreg(Objective):
    """The objective as its spec weighs it."""

    spec: VicregSpec

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        with torch.autocast(z_a_nd.device.type, enabled=False):
            loss, *parts = _Loss.apply(z_a_nd, z_b_nd, self.spec)
        names = ("invariance", "variance", "covariance", "feature_std_mean")
        return Terms(loss, dict(zip(names, parts, strict=True)))


class _Loss(LossOfBothViews):
    """L, its three parts without their weights, and the mean standard deviation of the features; L's gradient is made
    with it, from the same products.

    With X a view's centred rows, s_j = sqrt(Var_j + epsilon) and O its covariances without the diagonal,

        dL/dX = - variance / (2 d (N - 1)) [s_j < 1] X / s_j + 4 covariance / (d (N - 1)) X O,

    and of the distance 2 invariance (a - b) / (N d). Through the means goes nothing: each sum changes by a sum of
    centred values. So the backward needs no collective.
    """

    @staticmethod
    def forward(ctx: Any, z_a_nd: Tensor, z_b_nd: Tensor, spec: VicregSpec) -> tuple[Tensor, ...]:
        centred = centred_features(z_a_nd, z_b_nd)
        views_2nd, samples = centred.views_2nd, centred.samples
        features = views_2nd.shape[2]
        dtype = views_2nd.dtype
        difference_nd = z_a_nd.detach().to(dtype) - z_b_nd.detach().to(dtype)
        invariance = collectives.all_reduce_(difference_nd.square().sum()) / (samples * features)
        std_2d = (centred.squares_2d / (samples - 1) + spec.epsilon).sqrt()
        missing_2d = (1 - std_2d).clamp(min=0)
        variance = missing_2d.mean()
        covariance = views_2nd.new_zeros(())
        gradient_2nd = torch.empty_like(views_2nd)
        for view_nd, gradient_nd in zip(views_2nd, gradient_2nd, strict=True):
            covariance += _off_diagonal(view_nd, samples, into=gradient_nd) / features
        loss = spec.invariance * invariance + spec.variance * variance + spec.covariance * covariance

        gradient_2nd.mul_(4 * spec.covariance / (features * (samples - 1)))
        pull_2d = (missing_2d > 0) / std_2d * (-spec.variance / (2 * features * (samples - 1)))
        gradient_2nd.addcmul_(views_2nd, pull_2d[:, None])
        apart = 2 * spec.invariance / (samples * features)
        gradient_2nd[0].add_(difference_nd, alpha=apart)
        gradient_2nd[1].sub_(difference_nd, alpha=apart)
        parts = invariance, variance, covariance, std_2d.mean()
        keep_gradient(ctx, gradient_2nd, z_a_nd, z_b_nd, *parts)
        return loss, *parts


def _off_diagonal(x_nd: Tensor, samples: int, *, into: Tensor) -> Tensor:
    """The sum over i != j of Cov_ij^2 of centred rows; X O is written to `into`, like `x_nd`.

    The covariances are held whole or a shard of rows at a time (rows_held), one collective for each shard.
    """
    features = x_nd.shape[1]
    rows = rows_held(features, collectives.world_size())
    energy = x_nd.new_zeros(())
    for start in range(0, features, rows):
        shard = slice(start, min(start + rows, features))
        covariances_rd = collectives.all_reduce_(x_nd[:, shard].mT @ x_nd).div_(samples - 1)
        covariances_rd.diagonal(start).zero_()
        # A squared norm: it needs no second matrix for the squares.
        energy += torch.linalg.vector_norm(covariances_rd).square()
        into[:, shard] = x_nd @ covariances_rd.mT
    return energy
