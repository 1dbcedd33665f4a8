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
    hundredth.
    """

    def forward(self, input: Tensor) -> Tensor:
        """What nn.Linear gives outside autocast."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class NoProjector(nn.Module):
    """The embedding is the feature, (n, d) → (n, d), in float32 where the network's products are of 16 bits."""

    def forward(self, features: Tensor) -> Tensor:
        """The same numbers, rounded as the backbone has left them."""
        return features.to(torch.promote_types(features.dtype, torch.float32))


def build_projector(in_features: int, widths: Sequence[int], *, seed: int, batch_norm: bool = True) -> nn.Module:
    """Linear-BN-ReLU for every width but the last, which is a bare Linear: (n, in_features) → (n, widths[-1]).

    Under autocast all but the last are computed in 16 bits; the embeddings are float32 (`WideLinear`).
    No Linear has a bias: BN, or the objective's own normalisation, takes its mean out (Barlow Twins paper 2.2 and its
    reference code). Without `batch_norm` all but the last have one, in the place of BN's. Without `widths` it is a
    `NoProjector`. Initialised from `seed` alone; torch's generators are left as they were.
    """
    if not widths:
        return NoProjector()
    layers: list[nn.Module] = []
    with drawn_from(seed, "projector"):
        *hidden, last = pairwise((in_features, *widths))
        for narrow, wide in hidden:
            normalised = [nn.BatchNorm1d(wide)] if batch_norm else []
            layers += [nn.Linear(narrow, wide, bias=not batch_norm), *normalised, nn.ReLU(inplace=True)]
        layers.append(WideLinear(*last, bias=False))
    return nn.Sequential(*layers)


def rank_warning(projector: nn.Module, samples: int) -> str | None:
    """What to say of a projector whose last layer has fewer inputs than its outputs have use for; None: it has enough,
    or there is none.

    Z = H W with r inputs has rank r at most, and so has C, also after the mean is taken out. As
    (tr C)² <= rank(C) ‖C‖² (Cauchy-Schwarz on the singular values), d features whose diagonal has come to 1 keep an
    off-diagonal sum of d (d / r - 1) or more. With r >= N - 1 that is below what N samples leave anyway (the noise
    floor).
    """
    layers = [layer for layer in projector.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        return None
    last = layers[-1]
    rank, width = last.in_features, last.out_features
    if rank >= min(width, samples - 1):
        return None
    least = width * (width / rank - 1)
    return (
        f"the projector's last layer makes {width} features of {rank}, so their correlation matrix has rank {rank} at "
        f"most and cannot come near the identity: the off-diagonal sum stays at {least:.4g} or more; "
        f"make the layer before it at least {min(width, samples - 1)} wide"
    )
