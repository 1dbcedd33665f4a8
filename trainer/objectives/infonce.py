"""InfoNCE, from view a to view b, in the decoupled form of the Barlow Twins paper or with the positive in the sum.

    L = 1/N sum_b [ -s_bb + log sum_{b' != b} e^{s_bb'} ],        s_bb' = a_b.b_b' / (tau |a_b| |b_b'|)

over the N images of the batch of all ranks. Source: Zbontar et al. 2021 (arXiv 2103.03230), section 5, where it is a
sum over the batch; here it is its mean, so that a rate does not hang on the batch. The sum over b' != b leaves the
positive out: such a loss is decoupled, and may be negative. `positive_in_sum` takes b' = b in, which gives InfoNCE (van
den Oord et al. 2018, arXiv 1807.03748, equation 4), never below 0. With D+ = {(a_b, b_b)} and D the views b that is the
mean over D+ of the contrastive loss of Purushwalkam and Gupta 2020 (arXiv 2007.13916): the logarithm of a share, which
a copy of the formula may have lost, with the pairs (x, x~) that are not in D+ for negatives.
Tests: tests/trainer/objectives/test_objectives_contrast.py.
Shape suffixes: 2 views, n images of this rank, c of all ranks, d features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs.objectives.infonce import InfonceSpec
from trainer.objectives.base import Objective, Terms
from trainer.objectives.both_views import LossOfBothViews, keep_gradient
from trainer.objectives.contrast import Cosines, UnitRows, of_all_ranks
from trainer.runtime import collectives


class Infonce(Objective):
    """The objective in the form of its spec."""

    spec: InfonceSpec

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        with torch.autocast(z_a_nd.device.type, enabled=False):
            loss, *parts = _Loss.apply(z_a_nd, z_b_nd, self.spec)
        return Terms(loss, dict(zip(("positive_cosine", "positives_top1"), parts, strict=True)))


class _Loss(LossOfBothViews):
    """L, the mean cosine of the two views of an image, and the percentage of images whose view b is the nearest to
    their view a; L's gradient is made with it: with p_bb' = e^{s_bb' - l_b},

        dL/da_b = 1/(N tau) (sum_b' p_bb' b_b' - b_b),        dL/db_b = 1/(N tau) (sum_b' p_b'b a_b' - a_b).
    """

    @staticmethod
    def forward(ctx: Any, z_a_nd: Tensor, z_b_nd: Tensor, spec: InfonceSpec) -> tuple[Tensor, ...]:
        unit = UnitRows.of(z_a_nd, z_b_nd)
        rows = z_a_nd.shape[0]
        samples = rows * collectives.world_size()
        first = rows * collectives.rank()
        left_out = None if spec.positive_in_sum else first
        a_nd, b_nd = unit.views_2nd
        all_a_cd, all_b_cd = (of_all_ranks(view_nd).flatten(0, 1) for view_nd in (a_nd, b_nd))
        a_to_b = Cosines(a_nd, all_b_cd, spec.temperature, positive=first, left_out=left_out)
        b_to_a = Cosines(b_nd, all_a_cd, spec.temperature, positive=first, left_out=left_out)
        normalisers_n, positives_n, found = a_to_b.normalisers()
        sums = [(normalisers_n - positives_n).sum(), spec.temperature * positives_n.sum(), 100 * found]
        loss, cosine, top1 = collectives.all_reduce_(torch.stack(sums) / samples).unbind()

        gradient_2nd = torch.empty_like(unit.views_2nd)
        a_to_b.pull(gradient_2nd[0], normalisers_n, None)
        b_to_a.pull(gradient_2nd[1], None, of_all_ranks(normalisers_n).flatten())
        gradient_2nd.sub_(unit.views_2nd.flip(0)).div_(samples * spec.temperature)
        keep_gradient(ctx, unit.backward_(gradient_2nd), z_a_nd, z_b_nd, cosine, top1)
        return loss, cosine, top1
