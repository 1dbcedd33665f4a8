"""Signs that a network learns nothing, for words beside the curves, which look well: images that hold nothing, features
that are the same of every image. Of evaluations: trainer.evaluation.extremes.

A loss cannot tell: a correlation of constant features is set to 0 (trainer.objectives.correlation), so it stands still
at the number of features, and passes no gradient.

Shape suffixes: n images of this rank, d features, 3 channels, s pixels of an image.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from trainer.diagnostics.base import BatchDiagnostic, BatchSeen, Diagnosed, Records
from trainer.runtime import collectives
from trainer.runtime.context import Context
from trainer.training.step_plan import StepPlan

TRAINED_SPREAD = 1e-3
"""Features that differ by less than this part of their size are the same: batch normalisation, in training, enlarges
what rounding has left of a difference."""

REMEDY = "look at views.png and at the image files (docs/data-sets.md, When images are black)"


class LearnsNothing(BatchDiagnostic):
    """Warns once, with a correlation record, where there is nothing in a step to learn."""

    name = "signs of nothing to learn"
    every_rank = True

    def __init__(self, plan: StepPlan, context: Context) -> None:
        self._plan = plan
        self._context = context
        self._told: set[str] = set()
        self._newest: str | None = None

    @classmethod
    def of(cls, run: Diagnosed) -> Self:
        return cls(run.plan, run.context)

    def due(self, step: int) -> bool:
        return bool(self._plan.correlations_due(step))

    @property
    def last_words(self) -> str | None:
        """What the newest look has found."""
        return self._newest

    def observe(self, seen: BatchSeen, records: Records) -> None:
        """Look at the views of this rank's images, and at the embeddings of all."""
        found = {"images": self._images(seen.views), "features": self._features(seen.z_a_nd, seen.z_b_nd)}
        self._newest = next((said for said in found.values() if said is not None), None)
        step = self._plan.correlations_due(seen.step)[0]
        for what, said in found.items():
            if said is not None and what not in self._told:
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
