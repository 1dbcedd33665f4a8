"""Images that hold nothing, for words beside the curves, which look well. Features that are the same of every image:
trainer.diagnostics.health; of evaluations trainer.evaluation.extremes.

Shape suffixes: n images of this rank, 3 channels, s pixels of an image.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from trainer.diagnostics.base import BatchDiagnostic, BatchSeen, Diagnosed, Records
from trainer.runtime import collectives
from trainer.runtime.context import Context
from trainer.training.step_plan import StepPlan

REMEDY = "look at views.png and at the image files (docs/data-sets.md, When images are black)"


class LearnsNothing(BatchDiagnostic):
    """Warns once, with a correlation record, where the images of a step hold nothing."""

    name = "signs of nothing to learn"
    every_rank = True

    def __init__(self, plan: StepPlan, context: Context) -> None:
        self._plan = plan
        self._context = context
        self._told = False
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
        """Look at the views of this rank's images."""
        self._newest = self._images(seen.views)
        if self._newest is not None and not self._told:
            self._told = True
            step = self._plan.correlations_due(seen.step)[0]
            self._context.warn(f"step {step}: {self._newest}", nothing_learned="images")

    def _images(self, views: tuple[Tensor, Tensor]) -> str | None:
        flat_n3s = torch.stack(views).flatten(3)
        blank_n = (flat_n3s.amax(-1) == flat_n3s.amin(-1)).all(2).all(0)
        numbers = torch.tensor([int(blank_n.sum()), len(blank_n)], device=blank_n.device)
        blank, count = collectives.all_reduce_(numbers).tolist()
        if 10 * blank < 9 * count:
            return None
        which = f"{blank:,} of the batch's {count:,} images are of one colour"
        return f"{which}: there is nothing to learn from them; {REMEDY}"
