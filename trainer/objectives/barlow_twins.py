"""The Barlow Twins objective and the parts of it that are worth watching.

    L = sum_i (1 - C_ii)^2 + lambda * sum_{i != j} C_ij^2

of the cross-correlation matrix C of two views over the batch of all ranks. Source: Zbontar et al. 2021
(arXiv 2103.03230), equation 1. C: trainer.objectives.correlation. The ways to L: trainer.objectives.products.
Tests, in tests/trainer/objectives: test_objectives_laws.py (a case by hand, finite differences, what changes nothing),
test_objectives_forms.py (the three forms agree), test_objectives_precision.py (float32); any number of
ranks: `objective` in tests/support/rank_laws.py.
Shape suffixes: 2 views, n samples of this rank, d features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from barlow_lab.specs.loss_form import LossFormOrAuto, choose_form, rows_of_a_shard
from barlow_lab.specs.objectives import BarlowTwinsSpec
from trainer.objectives.base import Objective, Terms
from trainer.objectives.correlation import noise_floor, unit_features
from trainer.objectives.products import OffDiagonal, dual, in_rows
from trainer.runtime import collectives


@dataclass(frozen=True, slots=True)
class BarlowTwinsTerms:
    """The loss and its parts: scalars, the same on every rank. Only `loss` carries a gradient."""

    loss: Tensor
    on_diagonal: Tensor
    off_diagonal: Tensor
    off_diagonal_excess: Tensor
    correlation_diagonal_mean: Tensor
    correlation_off_diagonal_rms: Tensor
    noise_floor: float


def barlow_twins(z_a_nd: Tensor, z_b_nd: Tensor, lambda_: float, form: LossFormOrAuto = "auto") -> BarlowTwinsTerms:
    """The objective of `z_a_nd`, `z_b_nd`: this rank's embeddings of the two views, (n, d), the same n on every rank.

    `off_diagonal` is the plain sum, without lambda; `off_diagonal_excess` = lambda * (off_diagonal - noise_floor) is
    what is comparable across batch sizes, and may be negative.

    The gradient is the true one of the global batch (the convention of trainer.runtime.collectives). All is computed in
    float32 outside autocast, in float64 for float64 input; the host waits for nothing. `form` is one of three exact
    ways to compute it, `auto` the one that barlow_lab.specs.loss_form chooses.

    Raises:
        ValueError: the two shapes differ, or the global batch has a single sample.
    """
    with torch.autocast(z_a_nd.device.type, enabled=False):
        loss, diagonal_d, off_diagonal = _Loss.apply(z_a_nd, z_b_nd, lambda_, form)
        features = z_a_nd.shape[1]
        floor = noise_floor(features, samples=z_a_nd.shape[0] * collectives.world_size())
        # The dual's difference may end a rounding below 0 when nothing is off the diagonal.
        off_diagonal = off_diagonal.clamp(min=0)
        return BarlowTwinsTerms(
            loss=loss,
            on_diagonal=(1 - diagonal_d).square().sum(),
            off_diagonal=off_diagonal,
            off_diagonal_excess=lambda_ * (off_diagonal - floor),
            correlation_diagonal_mean=diagonal_d.mean(),
            correlation_off_diagonal_rms=(off_diagonal / max(1, features * (features - 1))).sqrt(),
            noise_floor=floor,
        )


class BarlowTwins(Objective):
    """`barlow_twins` as its spec asks for it."""

    def __init__(self, spec: BarlowTwinsSpec) -> None:
        super().__init__(spec)
        self.off_diagonal_weight = spec.lambda_

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        terms = barlow_twins(z_a_nd, z_b_nd, self.spec.lambda_, self.spec.form)
        parts = {
            "on_diagonal": terms.on_diagonal,
            "off_diagonal": terms.off_diagonal,
            "off_diagonal_excess": terms.off_diagonal_excess,
            "correlation_diagonal_mean": terms.correlation_diagonal_mean,
            "correlation_off_diagonal_rms": terms.correlation_off_diagonal_rms,
        }
        return Terms(terms.loss, parts, {"noise_floor": terms.noise_floor})


class _Loss(torch.autograd.Function):
    """L, C_ii and the sum of C_ij^2 over i != j; L's gradient is made with it, from the same products.

    With X, Y the views with features of length 1 and O = C without its diagonal,

        dL/dX = 2 lambda Y O^T - 2 Y diag(1 - C_ii),

    and by symmetry for Y. Through the scaling of a feature to length 1 over all ranks' rows goes what is orthogonal to
    it: dL/dz = scale * (dL/dX - X <X, dL/dX>), where <X, dL/dX> per feature is 2 lambda sum_j O_ij^2
    - 2 (1 - C_ii) C_ii, which every rank has. Through the means goes nothing: moving one by e changes each sum by e
    times a sum of centred values. So the backward needs no collective.
    """

    @staticmethod
    def forward(
        ctx: Any, z_a_nd: Tensor, z_b_nd: Tensor, lambda_: float, form: LossFormOrAuto
    ) -> tuple[Tensor, Tensor, Tensor]:
        unit_2nd, scales_2d = unit_features(z_a_nd, z_b_nd)
        off = _products(unit_2nd, form)
        missing_d = 1 - off.diagonal_d
        off_diagonal = off.energy_2d[0].sum()
        loss = missing_d.square().sum() + lambda_ * off_diagonal

        pull_d = -2 * missing_d
        gradient_2nd = off.products_2nd.mul_(2 * lambda_).addcmul_(unit_2nd.flip(0), pull_d)
        along_2d = 2 * lambda_ * off.energy_2d + pull_d * off.diagonal_d
        gradient_2nd.addcmul_(unit_2nd, along_2d[:, None], value=-1).mul_(scales_2d[:, None])
        ctx.save_for_backward(gradient_2nd)
        ctx.dtypes = z_a_nd.dtype, z_b_nd.dtype
        ctx.mark_non_differentiable(off.diagonal_d, off_diagonal)
        return loss, off.diagonal_d, off_diagonal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_2nd,) = ctx.saved_tensors
        a_nd, b_nd = gradients[0] * gradient_2nd
        return a_nd.to(ctx.dtypes[0]), b_nd.to(ctx.dtypes[1]), None, None


def _products(unit_2nd: Tensor, form: LossFormOrAuto) -> OffDiagonal:
    ranks = collectives.world_size()
    _, rows, features = unit_2nd.shape
    if form == "auto":
        form = choose_form(rows * ranks, features, ranks)
    if form == "dual":
        return dual(unit_2nd)
    return in_rows(unit_2nd, features if form == "direct" else rows_of_a_shard(features, ranks))
