"""Logarithms of sums of exponentials of cosines over the batch of all ranks, and their gradient, a block at a time.

With rows u of length 1, the objectives that tell images apart (trainer.objectives.nt_xent, .infonce) are made of

    l_i = log sum_j e^{u_i.v_j / tau}        and        sum_j e^{s_ij - l_i} v_j,    sum_j e^{s_ij - l_j} v_j

where i are rows of this rank and j those of all ranks, but for one that is left out. Neither the matrix of s nor its
exponentials are ever held whole: `normalisers` makes l by blocks of rows, `pull` makes the blocks once more for the
gradient. So a rank needs the rows of all ranks and their l, and no collective for gradients.

Tests: tests/trainer/objectives/test_objectives_contrast.py, and for several ranks `nt_xent` and `infonce` in
tests/support/rank_laws.py.

Shape suffixes: n rows of this rank, c columns (rows of all ranks), d features, r rows in a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from barlow_lab.specs.objectives.contrast import rows_of_a_block
from trainer.runtime import collectives


@dataclass(frozen=True, slots=True)
class UnitRows:
    """This rank's embeddings of both views with rows of length 1, (2, n, d), and the scales (2, n, 1) that made them;
    outside autograd, in float32, or float64 for float64 input.

    A row that is 0 has scale 0 and stays 0: it has no direction, and passes no gradient.
    """

    views_2nd: Tensor
    scales_2n1: Tensor

    @classmethod
    def of(cls, z_a_nd: Tensor, z_b_nd: Tensor) -> UnitRows:
        """Raises ValueError where the two shapes differ, or the batch of all ranks has a single image."""
        if z_a_nd.shape != z_b_nd.shape or z_a_nd.ndim != 2:
            raise ValueError(f"two (n, d) embeddings are needed, not {tuple(z_a_nd.shape)} and {tuple(z_b_nd.shape)}")
        if z_a_nd.shape[0] * collectives.world_size() < 2:
            raise ValueError("an image is told from others: at least 2 samples are needed; raise batch_size")
        dtype = torch.promote_types(z_a_nd.dtype, torch.float32)
        views_2nd = torch.stack([z_a_nd.detach().to(dtype), z_b_nd.detach().to(dtype)])
        lengths_2n1 = torch.linalg.vector_norm(views_2nd, dim=2, keepdim=True)
        scales_2n1 = lengths_2n1.reciprocal().masked_fill(lengths_2n1 <= torch.finfo(dtype).tiny ** 0.5, 0.0)
        return cls(views_2nd.mul_(scales_2n1), scales_2n1)

    def backward_(self, gradient_2nd: Tensor) -> Tensor:
        """The gradient with respect to the embeddings, in place, from that with respect to the rows of length 1: of
        a row, what is across it."""
        along_2n1 = (gradient_2nd * self.views_2nd).sum(2, keepdim=True)
        return gradient_2nd.addcmul_(self.views_2nd, along_2n1, value=-1).mul_(self.scales_2n1)


@dataclass(frozen=True, slots=True)
class Cosines:
    """s_ij = u_i.v_j / tau of this rank's rows `own_nd` with the columns `all_cd` of all ranks.

    Row i has its positive in column `positive` + i, and leaves column `left_out` + i out, if any.
    """

    own_nd: Tensor
    all_cd: Tensor
    temperature: float
    positive: int
    left_out: int | None

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        rows, columns = len(self.own_nd), len(self.all_cd)
        height = rows_of_a_block(rows, columns)
        for start in range(0, rows, height):
            block = slice(start, min(start + height, rows))
            yield block, (self.own_nd[block] / self.temperature) @ self.all_cd.mT

    def _leave_out(self, s_rc: Tensor, block: slice) -> None:
        if self.left_out is not None:
            s_rc.diagonal(self.left_out + block.start).fill_(-torch.inf)

    def normalisers(self) -> tuple[Tensor, Tensor, Tensor]:
        """l_i, s of the positive, and how often it is above all others that are told apart: (n,), (n,), scalar."""
        rows = len(self.own_nd)
        normalisers_n, positives_n = self.own_nd.new_empty(2, rows)
        found = self.own_nd.new_zeros(())
        for block, s_rc in self._blocks():
            positives_n[block] = s_rc.diagonal(self.positive + block.start)
            self._leave_out(s_rc, block)
            torch.logsumexp(s_rc, 1, out=normalisers_n[block])
            s_rc.diagonal(self.positive + block.start).fill_(-torch.inf)
            found += (positives_n[block] > s_rc.amax(1)).sum()
            del s_rc
        return normalisers_n, positives_n, found

    def pull(self, into_nd: Tensor, own_n: Tensor | None, all_c: Tensor | None) -> None:
        """Write sum_j (e^{s_ij - own_i} + e^{s_ij - all_j}) v_j to `into_nd`; what is None is left out of the sum.

        No exponent is above 0: s_ij is a term of both sums that l is the logarithm of.
        """
        for block, s_rc in self._blocks():
            self._leave_out(s_rc, block)
            weights_rc = None if own_n is None else s_rc.sub(own_n[block, None]).exp_()
            if all_c is not None:
                s_rc.sub_(all_c).exp_()
                weights_rc = s_rc if weights_rc is None else weights_rc.add_(s_rc)
            assert weights_rc is not None
            torch.mm(weights_rc, self.all_cd, out=into_nd[block])
            del s_rc, weights_rc


def of_all_ranks(rows: Tensor) -> Tensor:
    """(...) of this rank -> (W, ...), without a copy where there is no other rank."""
    return rows[None] if collectives.world_size() == 1 else collectives.all_gather(rows)
