"""NT-Xent, the normalised temperature-scaled cross-entropy of SimCLR.

    L = 1/(2N) sum_i [ -s_ip(i) + log sum_{k != i} e^{s_ik} ],        s_ik = z_i.z_k / (tau |z_i| |z_k|)

over the 2 N views of the batch of all ranks, p(i) being the other view of i's image. Source: Chen, Kornblith, Norouzi,
Hinton 2020 (arXiv 2002.05709), equation 1 and algorithm 1; their published code minimises
the sum over the two views, which is twice this. With D+ the pairs of views of one image, it is also the mean over D+ of
the contrastive loss of Purushwalkam and Gupta 2020 (arXiv 2007.13916).
Tests: tests/trainer/objectives/test_objectives_contrast.py.
Shape suffixes: 2 views, n images of this rank, c views of all ranks, d features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs.objectives.nt_xent import NtXentSpec
from trainer.objectives.base import Objective, Terms
from trainer.objectives.both_views import LossOfBothViews, keep_gradient
from trainer.objectives.contrast import Cosines, UnitRows, of_all_ranks
from trainer.runtime import collectives


class NtXent(Objective):
    """The objective at the temperature of its spec."""

    spec: NtXentSpec

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        with torch.autocast(z_a_nd.device.type, enabled=False):
            loss, *parts = _Loss.apply(z_a_nd, z_b_nd, self.spec.temperature)
        return Terms(loss, dict(zip(("positive_cosine", "positives_top1"), parts, strict=True)))


class _Loss(LossOfBothViews):
    """L, the mean cosine of the two views of an image, and the percentage of views whose other one is the nearest; L's
    gradient is made with it.

    A pair has each of its views as an anchor once, and s is symmetric, so with p_ik = e^{s_ik - l_i}

        dL/du_i = 1/(2 N tau) (sum_k (p_ik + p_ki) u_k - 2 u_p(i)).
    """

    @staticmethod
    def forward(ctx: Any, z_a_nd: Tensor, z_b_nd: Tensor, temperature: float) -> tuple[Tensor, ...]:
        unit = UnitRows.of(z_a_nd, z_b_nd)
        rows = z_a_nd.shape[0]
        samples = rows * collectives.world_size()
        all_cd = of_all_ranks(unit.views_2nd).flatten(0, 2)  # of each rank view a, then view b
        of_a = 2 * rows * collectives.rank()
        of_b = of_a + rows
        sides = [
            Cosines(unit.views_2nd[0], all_cd, temperature, positive=of_b, left_out=of_a),
            Cosines(unit.views_2nd[1], all_cd, temperature, positive=of_a, left_out=of_b),
        ]
        normalisers, positives, found = zip(*(side.normalisers() for side in sides), strict=True)
        normalisers_2n, positives_2n = torch.stack(normalisers), torch.stack(positives)
        sums = [(normalisers_2n - positives_2n).sum(), temperature * positives_2n.sum(), 100 * sum(found)]
        loss, cosine, top1 = collectives.all_reduce_(torch.stack(sums) / (2 * samples)).unbind()

        all_c = of_all_ranks(normalisers_2n).flatten()
        gradient_2nd = torch.empty_like(unit.views_2nd)
        for side, normalisers_n, gradient_nd in zip(sides, normalisers_2n, gradient_2nd, strict=True):
            side.pull(gradient_nd, normalisers_n, all_c)
        gradient_2nd.sub_(unit.views_2nd.flip(0), alpha=2).div_(2 * samples * temperature)
        keep_gradient(ctx, unit.backward_(gradient_2nd), z_a_nd, z_b_nd, cosine, top1)
        return loss, cosine, top1
