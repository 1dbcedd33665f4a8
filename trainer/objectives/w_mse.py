"""W-MSE: the distance of whitened views.

    L = 1/N sum_b | a'_b / |a'_b| - b'_b / |b'_b| |^2 = 1/N sum_b (2 - 2 cos(a'_b, b'_b)),        z' = L^-1 (z - mean)

with L L^T = (1 - shrinkage) C + shrinkage I, the Cholesky factor of the covariance C (by n - 1) of a view's rows in a
sub-batch: the rows of the batch of all ranks are put into sub-batches at random, anew for each step, the same for
both views, and a mean is taken over `iterations` such partitions. Source: Ermolov, Siarohin, Sangineto, Sebe 2021
(arXiv 2007.06346), section 3, in the form of its reference code (htdt/self-supervised). The
gradient goes through both views, and through means and covariances.

A covariance that is singular in the precision at hand is whitened with REMEDY of its mean variance added, counted, and
told once; so is that of constant embeddings, which have no direction and pass no gradient.
Tests: tests/trainer/objectives/test_objectives_w_mse.py, and for several ranks `w_mse` in tests/support/rank_laws.py.

Shape suffixes: 2 views, n rows of this rank, N of all ranks, m of a sub-batch, d features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs.objectives.w_mse import WMseSpec
from trainer.data.keyed import Purpose, permutation
from trainer.objectives.base import Objective, Run, Terms
from trainer.objectives.both_views import LossOfBothViews, keep_gradient
from trainer.runtime import collectives
from trainer.runtime.transfer import on_device

REMEDY = 1e-3
"""Shrinkage of a singular covariance to its mean variance: enough for float32 and a thousand features."""


class WMse(Objective):
    """The objective in the form of its spec; how often a covariance was singular is its state."""

    spec: WMseSpec
    needs_indices = True

    def begin(self, run: Run) -> None:
        self._run = run
        self._singular = torch.zeros((), dtype=torch.int64, device=run.device)
        self._orders: list[Tensor] | None = None

    def before_step(self, step: int, indices_n: Tensor) -> None:
        # By the places of images, not of rows: so the sub-batches are the same on any number of ranks, and in pieces.
        by_place_N = collectives.all_gather(indices_n).flatten().argsort(stable=True)
        self._orders = []
        for iteration in range(self.spec.iterations):
            drawn = permutation(Purpose.SUB_BATCHES, self._run.seed, step, iteration, count=self._run.batch_size)
            self._orders.append(by_place_N[on_device(drawn, self._run.device)])

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        if z_a_nd.shape != z_b_nd.shape or z_a_nd.ndim != 2:
            raise ValueError(f"two (n, d) embeddings are needed, not {tuple(z_a_nd.shape)} and {tuple(z_b_nd.shape)}")
        rows, features = z_a_nd.shape
        samples, size = rows * collectives.world_size(), self.spec.sub_batch_of(features)
        if size <= features or samples % size:
            raise ValueError(
                f"{samples} samples of {features} features have no sub-batches of {size}; at least 2 samples"
            )
        orders = self._orders or [torch.arange(samples, device=z_a_nd.device)]
        sub_batches_gm = torch.cat(orders).view(-1, size)
        with torch.autocast(z_a_nd.device.type, enabled=False):
            loss, singular = _Loss.apply(z_a_nd, z_b_nd, sub_batches_gm, self.spec.shrinkage)
        self._singular_now = singular
        return Terms(loss, {"singular_covariances": self._singular + singular})

    def after_step(self, good: Tensor) -> None:
        self._singular += self._singular_now * good

    def concern(self, values: Mapping[str, float]) -> str | None:
        if not values.get("singular_covariances"):
            return None
        return (
            "the covariance of a sub-batch was singular in this precision: the embeddings use fewer directions than "
            f"they have, or one is constant. It was whitened with {REMEDY:g} of its mean variance added; "
            "singular_covariances counts how often. Where it grows, lower optimizer.learning_rate, set "
            "objective.shrinkage, take larger sub-batches or end projector.widths in fewer features"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"singular": self._singular}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._singular.copy_(state["singular"])


class _Loss(LossOfBothViews):
    """L, and how many covariances were singular; L's gradient is made with it.

    Every rank has the rows of all and whitens its own sub-batches: so it has of the gradient of all rows a share, and
    their sum is whole.
    """

    @staticmethod
    def forward(
        ctx: Any, z_a_nd: Tensor, z_b_nd: Tensor, sub_batches_gm: Tensor, shrinkage: float
    ) -> tuple[Tensor, ...]:
        dtype = torch.promote_types(z_a_nd.dtype, torch.float32)
        rows, ranks, rank = len(z_a_nd), collectives.world_size(), collectives.rank()
        views_2nd = torch.stack([z_a_nd.detach().to(dtype), z_b_nd.detach().to(dtype)])
        all_2Nd = collectives.all_gather(views_2nd).transpose(0, 1).flatten(1, 2)
        gradient_2Nd = torch.zeros_like(all_2Nd)
        loss, singular = views_2nd.new_zeros(()), views_2nd.new_zeros(())
        for sub_batch_m in sub_batches_gm[rank::ranks]:
            z_2md = all_2Nd[:, sub_batch_m].requires_grad_()
            with torch.enable_grad():
                distance, found = _distance(z_2md, shrinkage)
            (gradient_2md,) = torch.autograd.grad(distance, z_2md)
            gradient_2Nd.index_add_(1, sub_batch_m, gradient_2md)
            loss += distance.detach()
            singular += found
        collectives.all_reduce_(gradient_2Nd)
        loss, singular = collectives.all_reduce_(torch.stack([loss, singular])).unbind()
        compared = sub_batches_gm.numel()
        singular = singular.long()
        keep_gradient(ctx, gradient_2Nd[:, rows * rank : rows * (rank + 1)] / compared, z_a_nd, z_b_nd, singular)
        return loss / compared, singular


def _distance(z_2md: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """The sum over a sub-batch's images of 2 - 2 cos, and how many of its two covariances were singular."""
    whitened_2md, singular_2 = whiten(z_2md, shrinkage)
    lengths_2m1 = torch.linalg.vector_norm(whitened_2md, dim=2, keepdim=True)
    tiny = torch.finfo(z_2md.dtype).tiny ** 0.5
    unit_2md = whitened_2md * lengths_2m1.clamp(min=tiny).reciprocal().masked_fill(lengths_2m1 <= tiny, 0.0)
    return (2 - 2 * (unit_2md[0] * unit_2md[1]).sum(1)).sum(), singular_2.sum()


def whiten(z_vmd: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """The rows of each view with the identity for a covariance, and which covariances were singular, (v,) bool.

    Products for a covariance are of float64 numbers: those of float32 may be rounded to TF32 on a GPU, which is too
    little for a factor. Rows that are all the same up to rounding are whitened to 0.
    """
    _, rows, features = z_vmd.shape
    limits = torch.finfo(z_vmd.dtype)
    means_v1d = z_vmd.mean(1, keepdim=True)
    centred_vmd = z_vmd - means_v1d
    with torch.no_grad():
        rounding_vd = 8 * limits.eps * means_v1d.squeeze(1).abs() + limits.tiny**0.5
        constant_v = (centred_vmd.square().mean(1) <= rounding_vd.square()).all(1)
    centred_vmd = centred_vmd.masked_fill(constant_v[:, None, None], 0.0)
    identity_dd = torch.eye(features, dtype=z_vmd.dtype, device=z_vmd.device)
    wide_vmd = centred_vmd.double()
    covariances_vdd = (wide_vmd.mT @ wide_vmd / (rows - 1)).to(z_vmd.dtype)
    shrunk_vdd = (1 - shrinkage) * covariances_vdd + shrinkage * identity_dd
    variances_vd = shrunk_vdd.diagonal(dim1=1, dim2=2)
    with torch.no_grad():
        factors_vdd, failed_v = torch.linalg.cholesky_ex(shrunk_vdd)
        pivots_vd = factors_vdd.diagonal(dim1=1, dim2=2).square()
        smallest_v, largest_v = pivots_vd.amin(1), variances_vd.amax(1)
        singular_v = (failed_v > 0) | (smallest_v <= features * limits.eps * largest_v)
    mean_variance_v = variances_vd.mean(1) + constant_v  # 1 of what does not vary at all
    remedied_vdd = (1 - REMEDY) * shrunk_vdd + REMEDY * mean_variance_v[:, None, None] * identity_dd
    factors_vdd, _ = torch.linalg.cholesky_ex(torch.where(singular_v[:, None, None], remedied_vdd, shrunk_vdd))
    return torch.linalg.solve_triangular(factors_vdd, centred_vmd.mT, upper=False).mT, singular_v
