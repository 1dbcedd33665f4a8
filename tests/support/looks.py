"""Diagnostics that look without a run, and one of a stranger, written as docs/adding-a-diagnostic.md says.

Shape suffixes: n images, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import runs
import torch
from PIL import Image
from torch import Tensor, nn

from trainer.data.registry import open_images
from trainer.diagnostics.base import BatchDiagnostic, BatchSeen, Diagnosed, NetworkDiagnostic, NetworkSeen, Records
from trainer.objectives.base import Terms, build_objective
from trainer.runtime.context import Context
from trainer.training.step_plan import StepPlan

D = TypeVar("D", bound=BatchDiagnostic)


class FirstFilters(NetworkDiagnostic):
    """A picture of the filters of the first layer after every epoch, and how large they are."""

    name = "first filters"
    metric_names = ("first_filters_size",)
    picture_keys = ("first-filters",)
    observed_key = "first_filters_observed"

    def __init__(self, run: Diagnosed) -> None:
        super().__init__()
        self._plan = run.plan

    @classmethod
    def of(cls, run: Diagnosed) -> Self | None:
        return cls(run)

    def due(self, step: int) -> bool:
        return self._plan.ends_epoch(step)

    def observe(self, seen: NetworkSeen, records: Records) -> None:
        layers = (module for module in seen.network.modules() if isinstance(module, nn.Conv2d))
        filters = next(layers).weight.detach().cpu().float()
        records.metrics({"first_filters_size": float(filters.square().mean().sqrt())})
        records.picture("first-filters", lambda path: _draw(path, filters))


def _draw(path: Path, filters: Tensor) -> None:
    flat = filters.flatten(1).numpy()
    grey = 255 * (flat - flat.min()) / max(np.ptp(flat), 1e-9)
    Image.fromarray(grey.astype(np.uint8)).save(path)


class Looking:
    """One look after another at batches that are made up; by default each step ends an epoch."""

    def __init__(self, context: Context, *, every: int = 1, stop_on: Sequence[str] = (), **record: object) -> None:
        spec = runs.spec(run={"record": {"correlation_every_epochs": 1, **record}, "stop_on": stop_on})
        self.plan = StepPlan(100 * every, every, spec)
        self.context = context
        images = open_images("digits", "train", limit=8)
        network = nn.ModuleDict({"backbone": nn.Identity(), "projector": nn.Identity()})
        self.run = Diagnosed(spec, self.plan, network, build_objective(spec.objective), images, context)
        self.terms = Terms(torch.zeros(()), {})
        self._made: dict[type, BatchDiagnostic] = {}

    def at(
        self,
        kind: type[D],
        step: int,
        views: tuple[Tensor, Tensor],
        z_a_nd: Tensor,
        z_b_nd: Tensor,
        features: tuple[Tensor, Tensor] | None = None,
    ) -> D:
        """The diagnostic, which has looked at this step; without `features` the backbone's are the embeddings."""
        made = self._made.get(kind) or kind.of(self.run)
        assert isinstance(made, kind)
        self._made[kind] = made
        epoch = self.plan.epoch(step)
        seen = BatchSeen(
            step, epoch, self.run.network, views, z_a_nd, z_b_nd, *(features or (z_a_nd, z_b_nd)), self.terms
        )
        made.observe(seen, Records(made, self.context, {}, self.plan, step, resumed=False))
        return made
