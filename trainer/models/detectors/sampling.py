"""Which anchors and regions of an image a detector is trained on: drawn by key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from trainer.data.keyed import Purpose, bits


class Part(IntEnum):
    """Of what is drawn: streams of the parts of one image never meet."""

    ANCHORS = 0
    REGIONS = 1


@dataclass(frozen=True, slots=True)
class Key:
    """What the draws of one image depend on, and nothing else does."""

    seed: int
    step: int
    index: int
    """Place of the image in its data set."""


class KeyedSampler:
    """`count` candidates of each image, `positive_fraction` of them positive at most, as many as there are.

    It stands in the place of torchvision's BalancedPositiveNegativeSampler, which draws from the one generator of the
    process: what that gives depends on all draws before it, so no resumed run could go on as the first one would have.
    """

    def __init__(self, part: Part, count: int, positive_fraction: float) -> None:
        self._part = part
        self._count = count
        self._most_positive = int(count * positive_fraction)
        self.keys: list[Key] = []
        """One for each image of the next call."""
        self.drawn = 0
        """Candidates that the last call chose, over all its images."""

    def __call__(self, matched: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """`matched`: for each image (candidates,), 1 and above positive, 0 negative, below not to be drawn. Two lists
        of (candidates,) uint8, 1 where a candidate was drawn: the positive ones, the negative ones."""
        positives, negatives = [], []
        self.drawn = 0
        for labels, key in zip(matched, self.keys, strict=True):
            chosen = self._drawn_from(labels >= 1, self._most_positive, key, positive=True)
            rest = self._drawn_from(labels == 0, self._count - int(chosen.sum()), key, positive=False)
            positives.append(chosen)
            negatives.append(rest)
            self.drawn += int(chosen.sum()) + int(rest.sum())
        return positives, negatives

    def _drawn_from(self, candidates: Tensor, most: int, key: Key, *, positive: bool) -> Tensor:
        places = torch.where(candidates)[0]
        out = torch.zeros_like(candidates, dtype=torch.uint8)
        if len(places) > most:
            stream = bits(Purpose.REGIONS, key.seed, key.step, key.index, 2 * self._part + positive)
            first = np.argpartition(stream.random_raw(len(places)), most)[:most]
            places = places[torch.from_numpy(first).to(places.device)]
        out[places] = 1
        return out
