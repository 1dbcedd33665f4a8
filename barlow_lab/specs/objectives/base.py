"""What every objective's spec tells by itself, so that parser, planner and loop ask and know none by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from barlow_lab.specs.common import SpecModel


class ObjectiveBase(SpecModel, ABC):
    """Base of the specs of objectives; each has a `name`, its parameters with their defaults, and their source."""

    implementation: ClassVar[str]
    """MODULE:CLASS of its trainer.objectives.base.Objective, which the trainer alone imports."""

    name: str

    def faults(self, *, batch_size: int, width: int) -> dict[str, str]:
        """Field → what is wrong with it beside a global batch of `batch_size` images and embeddings of `width`."""
        return {}

    @abstractmethod
    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """Most numbers that a rank holds at once for it beside its embeddings and their gradient: N = `samples` of all
        `ranks` ranks, d = `features`."""
