"""How many directions of the embedding space are in use.

Shape suffixes: n samples of this rank, d features.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from trainer.diagnostics.base import BatchDiagnostic, BatchSeen, Diagnosed, Records
from trainer.diagnostics.spectra import squared_singular_values
from trainer.training.step_plan import StepPlan


class EffectiveRank(BatchDiagnostic):
    """Records that of view a as metrics `effective_rank` and `rankme`, with each correlation record."""

    name = "effective rank"
    metric_names = ("effective_rank", "rankme")

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
            values = singular_values(seen.z_a_nd)
            found = {"effective_rank": effective_rank(values), "rankme": rankme(values)}
            for step in self._plan.correlations_due(seen.step):
                records.at(step).metrics(found)


def singular_values(z_nd: Tensor) -> Tensor:
    """Those of embeddings (n, d), not centred: min(n, d) of them, float64, right to 1e-8 of the largest one."""
    return squared_singular_values(z_nd).sqrt()


def effective_rank(singular: Tensor) -> float:
    """exp of the entropy of the singular values, which are divided by their sum: from 1 to their number (Roy and
    Vetterli 2007)."""
    return float(torch.special.entr(_shares(singular)).sum().exp())


def rankme(singular: Tensor) -> float:
    """The same with 1e-7 added to each share, as published numbers have it (Garrido et al. 2023, arXiv 2210.02885,
    equation 1): above 1 also where there is a single direction, by 0.013 of 8192."""
    return float(torch.special.entr(_shares(singular) + 1e-7).sum().exp())


def _shares(singular: Tensor) -> Tensor:
    return singular / singular.sum().clamp(min=torch.finfo(singular.dtype).tiny)
