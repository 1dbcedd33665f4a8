"""Invariance alone: the distance of the two views, which constant embeddings minimise, and a hinge against that."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.objectives.base import ObjectiveBase, epsilon_fault


class ViewDistanceSpec(ObjectiveBase):
    """Invariance alone: the mean squared distance of the views; by default nothing else, so that embeddings collapse.

    With `variance` it is VICReg without its covariances (arXiv 2105.04906), whose two weights are equal at a `variance`
    of the width.
    """

    implementation: ClassVar[str] = "trainer.objectives.view_distance:ViewDistance"
    memory_words: ClassVar[str] = "b x 8 x batch / slots x d"

    name: Literal["view_distance"] = Field(description="Which objective this is")
    variance: float = Field(
        0.0,
        ge=0.0,
        description="Weight of what the features' standard deviations lack to 1, a mean over features and both views",
    )
    epsilon: float = Field(1e-4, gt=0.0, description="Added to a variance before its root")

    def faults(self, *, batch_size: int, width: int) -> dict[str, str]:
        """An epsilon of a hinge without weight."""
        return epsilon_fault(self, self.variance)

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """Differences, centred features and their squares, of this rank's rows."""
        return 8 * (samples // ranks) * features
