"""Signs that a network learns nothing, for words beside the curves, which look well: images that hold nothing, features
that are the same of every image.

A loss cannot tell: a correlation of constant features is set to 0 (trainer.objectives.correlation), so it stands still
at the number of features, and passes no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.runtime import collectives
from trainer.runtime.context import Context

SPREAD = 1e-5
"""Features that differ by less than this part of the largest are the same: float32 rounds to 1e-7, and a network adds
to that from layer to layer."""
TRAINED_SPREAD = 1e-3
"""The same of embeddings in training: batch normalisation enlarges what rounding has left of a difference."""

REMEDY = "look at views.png and at the image files (docs/data-sets.md, When images are black)"


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


class LearnsNothing:
    """Looks at a step of a pretraining, and says it once where there is nothing in it to learn."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told: set[str] = set()
        self.last: str | None = None
        """What the newest look has found."""

    def look(self, step: int, views: tuple[Tensor, Tensor], z_a_nd: Tensor, z_b_nd: Tensor) -> None:
        """At the views of this rank's images, (n, 3, S, S) each, and the embeddings of the whole batch, (n, d) each;
        every rank calls it."""
        found = {"images": self._images(views), "features": self._features(z_a_nd, z_b_nd)}
        self.last = None
        for what, said in found.items():
            if said is None:
                continue
            self.last = self.last or said
            if what not in self._told:
                self._told.add(what)
                self._context.warn(f"step {step}: {said}", nothing_learned=what)

    def _images(self, views: tuple[Tensor, Tensor]) -> str | None:
        flat_n3s = torch.stack(views).flatten(3)
        blank_n = (flat_n3s.amax(-1) == flat_n3s.amin(-1)).all(2).all(0)
        numbers = torch.tensor([int(blank_n.sum()), len(blank_n)], device=blank_n.device)
        blank, count = collectives.all_reduce_(numbers).tolist()
        if 10 * blank < 9 * count:
            return None
        which = f"{blank:,} of the batch's {count:,} images are of one colour"
        return f"{which}: there is nothing to learn from them; {REMEDY}"

    @staticmethod
    def _features(z_a_nd: Tensor, z_b_nd: Tensor) -> str | None:
        for name, z_nd in (("a", z_a_nd), ("b", z_b_nd)):
            wide = z_nd.to(torch.promote_types(z_nd.dtype, torch.float32))
            size, spread = wide.square().mean().sqrt(), (wide - wide.mean(0)).square().mean().sqrt()
            if bool(wide.isfinite().all()) and bool(spread <= TRAINED_SPREAD * size):
                which = f"the features of all {len(z_nd):,} images are the same (view {name})"
                why = "nothing is learned, for what does not vary passes no gradient"
                return f"{which}: {why}; {REMEDY}, or the network has collapsed"
        return None
