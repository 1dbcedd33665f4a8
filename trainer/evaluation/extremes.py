"""Whether the features of all images are the same: no score tells, and it is then that of a guess.

Shape suffixes: 2 ends, n images of this rank, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.runtime import collectives

SPREAD = 1e-5
"""Features that differ by less than this part of the largest are the same: float32 rounds to 1e-7, and a network adds
to that from layer to layer."""


class Extremes:
    """The largest and the smallest value of each feature, over rows as they come on every rank."""

    def __init__(self) -> None:
        self._both: Tensor | None = None
        self._rows = 0

    def take(self, values_nd: Tensor) -> None:
        """Some more rows of this rank, (n, d)."""
        if len(values_nd):
            both_2d = torch.stack([values_nd.amax(0), -values_nd.amin(0)])
            self._both = both_2d if self._both is None else torch.maximum(self._both, both_2d)
            self._rows += len(values_nd)

    def all_the_same(self, device: torch.device) -> bool:
        """Whether all rows of all ranks are, which is not said of a single one; every rank calls it."""
        width = 0 if self._both is None else self._both.shape[1]
        numbers = torch.tensor([self._rows, width], device=device)
        rows = int(collectives.all_reduce_(numbers[:1].clone()))
        widest = int(collectives.all_reduce_max_(numbers[1:].clone()))
        if rows < 2:
            return False
        mine_2d = torch.full((2, widest), -torch.inf, dtype=torch.float64, device=device)
        if self._both is not None:
            mine_2d.copy_(self._both)
        high_d, minus_low_d = collectives.all_reduce_max_(mine_2d).unbind()
        size = torch.maximum(high_d.abs(), minus_low_d.abs()).max()
        return bool((high_d + minus_low_d).max() <= SPREAD * size)
