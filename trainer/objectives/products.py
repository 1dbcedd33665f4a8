"""Three exact ways to the sums over the cross-correlation matrix C = X^T Y that the Barlow Twins loss is made of.

X and Y are the two views with features of length 1 (trainer.objectives.correlation), rows over the batch of all ranks,
N in all. With O = C without its diagonal, the loss and its gradient (trainer.objectives.barlow_twins) need

    C_ii,    sum_j O_ij^2,    sum_j O_ji^2,    Y O^T,    X O     (the products for this rank's rows only)

- `in_rows`: C as it stands, all of it (the direct form) or a shard of rows at a time (the row-sharded one): the ranks'
  shares of X^T Y are summed, used by each rank for its own rows of the batch, and dropped before the next shard. So a
  shard is all of C that there ever is, d^2 / W numbers or less. Keeping d / W rows on each rank for good would take the
  whole batch on each rank, 2 N d numbers: more than C itself wherever the dual form is not to be had (N >= 0.75 d).
- `dual`: Y C^T = (Y Y^T) X and X C = (X X^T) Y: the Gram matrices of the samples, never C. The batch is gathered; each
  rank needs only its own rows of both Gram matrices, and of those one block of (N / W)^2 at a time.

Source: |X^T Y|^2 = <X X^T, Y Y^T> is the duality of Garrido et al. 2022 (arXiv 2206.02574). Which form is
taken when, and why not the dual from N = 0.75 d on: barlow_lab.specs.loss_form.
Tests: tests/trainer/objectives/test_objectives_forms.py; for several ranks `objective` in tests/support/rank_laws.py;
float32 against float64 in tests/trainer/objectives/test_objectives_precision.py.

Products are of float32 (or float64) operands, never of bfloat16 ones. Whether CUDA rounds those of float32 to TF32 is
torch's setting, made in trainer.runtime.precision (set_products) for the whole run: only where the network's own
products are of 16 bits.

Shape suffixes: 2 views, n samples of this rank, d features, r of them in a shard, w ranks, 3 sums of each
feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.runtime import collectives


@dataclass(frozen=True, slots=True)
class OffDiagonal:
    """What C is to the loss: the same on every rank but for `products_2nd`, which belongs to this rank's rows.

    `diagonal_d`: C_ii. `energy_2d`: sum over j != i of C_ij^2, and of C_ji^2. `products_2nd`: Y O^T, and X O.
    """

    diagonal_d: Tensor
    energy_2d: Tensor
    products_2nd: Tensor


def in_rows(unit_2nd: Tensor, rows: int) -> OffDiagonal:
    """By C, `rows` of its d rows at a time; one collective of `rows` * d numbers for each shard."""
    x_nd, y_nd = unit_2nd
    features = x_nd.shape[1]
    diagonal_d = x_nd.new_empty(features)
    energy_2d = x_nd.new_zeros(2, features)
    products_2nd = torch.zeros_like(unit_2nd)
    for start in range(0, features, rows):
        shard = slice(start, min(start + rows, features))
        x_nr = x_nd[:, shard]
        c_rd = collectives.all_reduce_(x_nr.mT @ y_nd)
        on_diagonal_r = c_rd.diagonal(start)
        diagonal_d[shard] = on_diagonal_r
        on_diagonal_r.zero_()
        # Squared norms: they need no second matrix for the squares.
        energy_2d[0, shard] = torch.linalg.vector_norm(c_rd, dim=1).square()
        energy_2d[1] += torch.linalg.vector_norm(c_rd, dim=0).square()
        products_2nd[0, :, shard] = y_nd @ c_rd.mT
        products_2nd[1].addmm_(x_nr, c_rd)
    return OffDiagonal(diagonal_d, energy_2d, products_2nd)


def dual(unit_2nd: Tensor) -> OffDiagonal:
    """By the Gram matrices of the samples; two collectives: of 2 N d numbers (gathered), and of 3 d (summed)."""
    x_nd, y_nd = unit_2nd
    alone = collectives.world_size() == 1
    everyone_w2nd = unit_2nd[None] if alone else collectives.all_gather(unit_2nd)
    products_2nd = torch.zeros_like(unit_2nd)
    for x_rows_nd, y_rows_nd in everyone_w2nd:
        products_2nd[0].addmm_(y_nd @ y_rows_nd.mT, x_rows_nd)
        products_2nd[1].addmm_(x_nd @ x_rows_nd.mT, y_rows_nd)
    # <X, Y C^T> and <Y, X C> per feature: the whole sums of squares of C's rows and columns.
    shares_3d = torch.cat([(x_nd * y_nd).sum(0)[None], (unit_2nd * products_2nd).sum(1)])
    diagonal_d, *_ = sums_3d = collectives.all_reduce_(shares_3d)
    energy_2d = sums_3d[1:] - diagonal_d.square()
    products_2nd.addcmul_(unit_2nd.flip(0), diagonal_d, value=-1)
    return OffDiagonal(diagonal_d, energy_2d, products_2nd)
