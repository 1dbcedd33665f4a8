"""The SimSiam objective: a predictor, a stop-gradient, and the negative cosine.

    L = - 1/2 mean_b [cos(h(a_b), b_b) + cos(h(b_b), a_b)]

of the embeddings a, b of two views, h a predictor that is trained with the network, and no gradient through the second
argument of a cosine. Source: Chen and He 2021 (arXiv 2011.10566), equations 1 to 4, with the networks of its reference
code (facebookresearch/simsiam, builder.py): a, b are normalised over the batch, by feature, with 1e-5 beside the
variance; h is Linear-BN-ReLU-Linear, and is called for each view by itself.

-1 is the least L, and is reached by a collapse as well: what tells them apart is `unit_std`, the mean over features of
the standard deviation of a_j / |a| over the batch, times sqrt(d). It is 1 for directions that are spread evenly over
the sphere and 0 where all are the same (section 4.1 there, figure 2, middle).

Tests: tests/trainer/objectives/test_objectives_simsiam.py, and for several ranks `simsiam` in
tests/support/rank_laws.py.

Shape suffixes: 2 views, n samples of this rank, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from barlow_lab.specs.objectives import SimsiamSpec
from trainer.models.predictor import build_predictor
from trainer.objectives.base import Objective, Run, Terms
from trainer.objectives.correlation import centred_features
from trainer.objectives.standardised import standardised
from trainer.runtime import collectives

EPSILON = 1e-5
"""Beside the variance: torch's default, which the reference code takes. It is what lets embeddings collapse."""


class Simsiam(Objective):
    """The objective as its spec asks for it."""

    spec: SimsiamSpec

    def __init__(self, spec: SimsiamSpec) -> None:
        super().__init__(spec)
        self.constant_rate = spec.constant_predictor_rate

    def begin(self, run: Run) -> None:
        """Make the predictor."""
        hidden = self.spec.hidden_width(run.width)
        self.parts = nn.ModuleDict({"predictor": build_predictor(run.width, hidden, bias=True, seed=run.seed)})

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        assert self.parts is not None, "begin comes first"
        with torch.autocast(z_a_nd.device.type, enabled=False):
            if self.spec.standardise:
                a_nd, b_nd = standardised(z_a_nd, z_b_nd, EPSILON).unbind()
            else:
                a_nd, b_nd = (z.to(torch.promote_types(z.dtype, torch.float32)) for z in (z_a_nd, z_b_nd))
            # By rows of length 1; it refuses what is no pair of views, also where nothing is standardised.
            unit = centred_features(F.normalize(a_nd), F.normalize(b_nd))
            predicted_nd = [F.normalize(self.parts["predictor"](z_nd)) for z_nd in (a_nd, b_nd)]
            targets_nd = [F.normalize(z_nd.detach() if self.spec.stop_gradient else z_nd) for z_nd in (b_nd, a_nd)]
            cosines = torch.stack([(p_nd * t_nd).sum() for p_nd, t_nd in zip(predicted_nd, targets_nd, strict=True)])
            loss = collectives.sum_over_ranks(-cosines.mean() / unit.samples)
            unit_std = (unit.squares_2d / unit.samples).sqrt().mean() * a_nd.shape[1] ** 0.5
            return Terms(loss, {"unit_std": unit_std})
