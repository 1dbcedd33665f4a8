"""Moments of the features of two views over many batches, in fixed memory: the population's cross-correlation.

Source: the population matrix of "Why Barlow Twins work" (2024, openreview ZINaxJyoQr, equations 4 and 7), with means in
place of its sums. A batch of N images is one draw of it, whose entries deviate by 1 / sqrt(N - 1). Sums of centred
products are merged without cancellation (Chan, Golub, LeVeque 1979): of n samples with means m, whose sum of
(a - m_a)(b - m_b)^T is M,

    M = M_1 + M_2 + n_1 n_2 / (n_1 + n_2) (m_a1 - m_a2)(m_b1 - m_b2)^T

so what comes out is that of all samples at once, in float64, whatever batches, blocks and ranks they came in.
Tests: tests/trainer/evaluation/test_view_moments.py; for several ranks `view_moments` in tests/support/rank_laws.py.

Shape suffixes: 2 views, n samples of this rank, d features, r of them in a tile, w ranks.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from trainer.objectives.correlation import inverse_lengths
from trainer.runtime import collectives

TILE = 2**22
"""Numbers of a matrix that are looked at at once: 32 MiB of float64."""

Rows = Callable[[int, int], tuple[Tensor, Tensor]]
"""Of a matrix (d, d), by first row and end: these rows, and the same rows of its transpose, (r, d) each."""


class ViewMoments:
    """Sums over samples of two views: d x d numbers in float64 for their cross moments, as many again for each view's
    own with `autos`. `samples` is how many were taken, `means_2d` their means, `squares_2d` the sums of squares of the
    centred features, `cross_dd` those of the products of view a's with view b's, `autos_2dd` of each with its own."""

    def __init__(self, features: int, device: torch.device, *, autos: bool = False) -> None:
        self.samples = 0
        self.means_2d = torch.zeros(2, features, dtype=torch.float64, device=device)
        self.squares_2d = torch.zeros_like(self.means_2d)
        self.cross_dd = torch.zeros(features, features, dtype=torch.float64, device=device)
        self.autos_2dd = self.cross_dd.new_zeros(2, features, features) if autos else None

    @property
    def features(self) -> int:
        """d."""
        return self.means_2d.shape[1]

    def take(self, a_nd: Tensor, b_nd: Tensor) -> None:
        """Take in the features of both views of these images, (n, d) each, of any n."""
        if not len(a_nd):
            return
        views_2nd = torch.stack([a_nd.double(), b_nd.double()])
        means_2d = views_2nd.mean(1)
        views_2nd -= means_2d[:, None]
        self.cross_dd.addmm_(views_2nd[0].mT, views_2nd[1])
        if self.autos_2dd is not None:
            self.autos_2dd.baddbmm_(views_2nd.mT, views_2nd)
        self.squares_2d += views_2nd.square().sum(1)
        self._move(len(a_nd), means_2d)

    def join(self, other: Self) -> None:
        """Take in what another one has taken, which keeps it."""
        if not other.samples:
            return
        self.cross_dd += other.cross_dd
        if self.autos_2dd is not None:
            assert other.autos_2dd is not None
            self.autos_2dd += other.autos_2dd
        self.squares_2d += other.squares_2d
        self._move(other.samples, other.means_2d)

    def _move(self, samples: int, means_2d: Tensor) -> None:
        """Count samples whose products about their own means have been added already."""
        total = self.samples + samples
        apart_2d = means_2d - self.means_2d
        self._spread(apart_2d, self.samples * samples / total)
        self.means_2d += apart_2d * (samples / total)
        self.samples = total

    def _spread(self, apart_2d: Tensor, weight: float) -> None:
        self.cross_dd.addr_(apart_2d[0], apart_2d[1], alpha=weight)
        if self.autos_2dd is not None:
            for auto_dd, apart_d in zip(self.autos_2dd, apart_2d, strict=True):
                auto_dd.addr_(apart_d, apart_d, alpha=weight)
        self.squares_2d += weight * apart_2d.square()

    def over_ranks_(self) -> Self:
        """Make it that of all ranks, which all call this, with any numbers of samples; the same bits on each."""
        if collectives.world_size() > 1:
            counts_w = collectives.all_gather(torch.tensor(self.samples, device=self.means_2d.device))
            means_w2d = collectives.all_gather(self.means_2d)
            total = int(counts_w.sum())
            means_2d = (counts_w[:, None, None] * means_w2d).sum(0) / max(1, total)
            self._spread(self.means_2d - means_2d, self.samples)
            for sums in (self.cross_dd, self.autos_2dd, self.squares_2d):
                if sums is not None:
                    collectives.all_reduce_(sums)
            self.means_2d, self.samples = means_2d, total
        return self

    def scales_2d(self) -> Tensor:
        """1 / sqrt(sum of squares) of each feature; 0 for one that is constant up to the rounding of float32, in which
        networks compute."""
        return inverse_lengths(self.squares_2d, self.means_2d.float(), self.samples).double()

    def correlation(self) -> Rows:
        """C_ij, the Pearson correlation of feature i of view a with feature j of view b."""
        scale_a_d, scale_b_d = self.scales_2d()
        cross_dd = self.cross_dd

        def rows(start: int, stop: int) -> tuple[Tensor, Tensor]:
            tile_rd = cross_dd[start:stop] * scale_a_d[start:stop, None] * scale_b_d
            return tile_rd, cross_dd[:, start:stop].mT * scale_b_d[start:stop, None] * scale_a_d

        return rows

    def covariance(self) -> Tensor:
        """(d, d): 1/N sum of (a - m_a)(b - m_b)^T, a matrix of its own."""
        return self.cross_dd / self.samples

    def second_moment(self) -> Tensor:
        """(d, d): 1/N sum of a b^T, not centred."""
        return self.covariance().addr_(self.means_2d[0], self.means_2d[1])


@dataclass(frozen=True, slots=True)
class MatrixSums:
    """Of a matrix C (d, d): the mean of C_ii, sum over i != j of C_ij^2, and sum over i, j of (C_ij - C_ji)^2."""

    diagonal_mean: float
    off_diagonal: float
    asymmetry: float


def matrix_sums(rows: Rows, features: int) -> MatrixSums:
    """Those of the matrix whose `rows` these are, by tiles."""
    each = max(1, TILE // features)
    found = []
    for start in range(0, features, each):
        tile_rd, transposed_rd = rows(start, min(start + each, features))
        on_diagonal_r = tile_rd.diagonal(start)
        squares = tile_rd.square().sum() - on_diagonal_r.square().sum()
        found.append(torch.stack([on_diagonal_r.sum(), squares, (tile_rd - transposed_rd).square().sum()]))
    diagonal, off_diagonal, asymmetry = torch.stack(found).sum(0).tolist()
    return MatrixSums(diagonal / features, max(0.0, off_diagonal), asymmetry)


def rows_of(matrix_dd: Tensor) -> Rows:
    """The rows of a matrix that is there as a whole."""
    return lambda start, stop: (matrix_dd[start:stop], matrix_dd[:, start:stop].mT)


def symmetry_defect(asymmetry: float, off_diagonal: float) -> float:
    """|C - C^T| by the root of 2 times |C without its diagonal|, of their sums of squares: 0 where C is symmetric, 1
    where C_ij says nothing of C_ji."""
    return (asymmetry / (2 * off_diagonal)) ** 0.5 if off_diagonal > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Scatter:
    """What the images that happened to be drawn leave open, by the scatter of `blocks` equal parts of them.

    `diagonal_mean` and `off_diagonal` are standard errors of the sums of MatrixSums over all images: the deviation of
    those of the blocks by the root of their number. Where C is 0 off the diagonal, the sum there is nothing but noise,
    which a block has more of: the error is too large then. `entry` is the root mean square error of an entry off the
    diagonal, `asymmetry` what a symmetric matrix would be expected to show of it: of n images the squared noise is
    proportional to 1 / (n - 1), so a sum of squares over a block exceeds that over all by the noise that all N have,
    times (N - 1) / (n - 1) less one. So neither takes features to be independent.
    """

    blocks: int
    diagonal_mean: float
    off_diagonal: float
    entry: float
    asymmetry: float


def scatter(blocks: Sequence[MatrixSums], whole: MatrixSums, features: int, samples: int) -> Scatter:
    """That of blocks of equally many images, two at least, of which `whole` has all, `samples`."""
    count = len(blocks)
    root = count**0.5
    excess = (samples - 1) / (samples / count - 1) - 1

    def noise(of_blocks: list[float], of_whole: float) -> float:
        return max(0.0, (statistics.fmean(of_blocks) - of_whole) / excess)

    energies = [one.off_diagonal for one in blocks]
    return Scatter(
        blocks=count,
        diagonal_mean=statistics.stdev(one.diagonal_mean for one in blocks) / root,
        off_diagonal=statistics.stdev(energies) / root,
        entry=(noise(energies, whole.off_diagonal) / max(1, features * (features - 1))) ** 0.5,
        asymmetry=noise([one.asymmetry for one in blocks], whole.asymmetry),
    )
