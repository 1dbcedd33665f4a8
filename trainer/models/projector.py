"""The projector: from features to the embedding that the objective sees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.models.seeding import drawn_from


class WideLinear(nn.Linear):
    """An nn.Linear whose product is in the dtype of its weights, under autocast too: (n, in) → (n, out).

    The correlation of embeddings that were rounded to bf16, itself in fp32, has a gradient that is off by up to a
    hundredth (research/trainer-anchors P6).
    """

    def forward(self, input: Tensor) -> Tensor:
        """What nn.Linear gives outside autocast."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


def build_projector(in_features: int, widths: Sequence[int], *, seed: int) -> nn.Module:
    """Linear-BN-ReLU for every width but the last, which is a bare Linear: (n, in_features) → (n, widths[-1]).

    Under autocast all but the last are computed in 16 bits; the embeddings are float32 (`WideLinear`).
    No Linear has a bias: BN, or the objective's own normalisation, takes its mean out (Barlow Twins paper 2.2 and its
    reference code). Initialised from `seed` alone; torch's generators are left as they were.
    """
    assert widths, "a projector has at least one layer"
    layers: list[nn.Module] = []
    with drawn_from(seed, "projector"):
        *hidden, last = pairwise((in_features, *widths))
        for narrow, wide in hidden:
            layers += [nn.Linear(narrow, wide, bias=False), nn.BatchNorm1d(wide), nn.ReLU(inplace=True)]
        layers.append(WideLinear(*last, bias=False))
    return nn.Sequential(*layers)
