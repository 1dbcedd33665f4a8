"""The projector: from features to the embedding that the objective sees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from trainer.models.seeding import drawn_from


def build_projector(in_features: int, widths: Sequence[int], *, seed: int) -> nn.Module:
    """Linear-BN-ReLU for every width but the last, which is a bare Linear: (n, in_features) → (n, widths[-1]).

    No Linear has a bias: BN, or the objective's own normalisation, takes its mean out (Barlow Twins paper 2.2 and its
    reference code). Initialised from `seed` alone; torch's generators are left as they were.
    """
    assert widths, "a projector has at least one layer"
    layers: list[nn.Module] = []
    with drawn_from(seed, "projector"):
        for narrow, wide in pairwise((in_features, *widths)):
            layers += [nn.Linear(narrow, wide, bias=False), nn.BatchNorm1d(wide), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-2])
