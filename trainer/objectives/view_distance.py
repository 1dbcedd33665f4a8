"""The distance of the two views: invariance alone; and with a hinge on the features' standard deviations.

    L = 1/N sum_b |a_b - b_b|^2 + variance * (v(a) + v(b)) / 2,        v(z) = mean_j max(0, 1 - sqrt(Var z_j + epsilon))

over the batch of all ranks, variances by N - 1. The first term asks for invariance to the distortions and for nothing
else: it has the minima of 1 - C_ii of the views' correlation (of a standardised feature it is 2 - 2 C_ii), and constant
embeddings beside them, to which it goes. The second is the variance term of VICReg (Bardes, Ponce, LeCun 2022, arXiv
2105.04906, section 4.1, in its reference code's form).
Tests: tests/trainer/objectives/test_objectives_view_distance.py, and for several ranks `view_distance` in
tests/support/rank_laws.py.

Shape suffixes: 2 views, N samples of all ranks, n of this one, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from barlow_lab.specs.objectives.view_distance import ViewDistanceSpec
from trainer.objectives.base import Objective, Terms
from trainer.objectives.correlation import centred_features
from trainer.runtime.collectives import sum_over_ranks


class ViewDistance(Objective):
    """The objective as its spec weighs it."""

    spec: ViewDistanceSpec

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        with torch.autocast(z_a_nd.device.type, enabled=False):
            centred = centred_features(z_a_nd, z_b_nd)
            views_2nd = torch.stack([z_a_nd.to(centred.means_2d.dtype), z_b_nd.to(centred.means_2d.dtype)])
            distance = sum_over_ranks((views_2nd[0] - views_2nd[1]).square().sum()) / centred.samples
            # Through the means goes no gradient: a variance changes by a sum of centred values.
            squares_2d = sum_over_ranks((views_2nd - centred.means_2d[:, None]).square().sum(1))
            std_2d = (squares_2d / (centred.samples - 1) + self.spec.epsilon).sqrt()
            variance = F.relu(1 - std_2d).mean()
            loss = distance + self.spec.variance * variance
        parts = {"view_distance": distance, "variance": variance, "feature_std_mean": std_2d.mean()}
        return Terms(loss, {name: part.detach() for name, part in parts.items()})
