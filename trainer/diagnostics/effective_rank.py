"""How many directions of the embedding space are in use.

Shape suffixes: n samples of this rank, d features.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from trainer.diagnostics.base import BatchDiagnostic, BatchSeen, Diagnosed, Records
from trainer.training.step_plan import StepPlan


class EffectiveRank(BatchDiagnostic):
    """Records that of view a as metric `effective_rank`, with each correlation record."""

    name = "effective rank"

    def __init__(self, plan: StepPlan) -> None:
        self._plan = plan

    @classmethod
    def of(cls, run: Diagnosed) -> Self:
        return cls(run.plan)

    def due(self, step: int) -> bool:
        return bool(self._plan.correlations_due(step))

    def observe(self, seen: BatchSeen, records: Records) -> None:
        """Record it, but for a step whose embeddings are not finite."""
        if seen.z_a_nd.isfinite().all() and seen.z_b_nd.isfinite().all():
            found = {"effective_rank": effective_rank(seen.z_a_nd)}
            for step in self._plan.correlations_due(seen.step):
                records.at(step).metrics(found)


def effective_rank(z_nd: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the embeddings (n, d): from 1 to min(n, d).

    Roy and Vetterli 2007; as RankMe (arXiv 2210.02885, equation 1) it predicts downstream accuracy without labels.
    Not centred, as there. In float32, or float64 for float64 input.
    """
    values = torch.linalg.svdvals(z_nd.to(torch.promote_types(z_nd.dtype, torch.float32)))
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())
