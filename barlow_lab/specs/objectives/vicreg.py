"""VICReg (Bardes, Ponce, LeCun 2022, arXiv 2105.04906)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.loss_form import rows_held
from barlow_lab.specs.objectives.base import ObjectiveBase, epsilon_fault


class VicregSpec(ObjectiveBase):
    """VICReg: the distance of the two views, a hinge on each feature's standard deviation, and the covariances.

    Weights and terms are those of the reference code (facebookresearch/vicreg): the distance is a mean over features
    too, and the hinge the mean of both views, where the paper's equations sum; its 25, 25 and 1 hold for the code.
    """

    implementation: ClassVar[str] = "trainer.objectives.vicreg:Vicreg"
    memory_words: ClassVar[str] = "b x d^2, or where that is too large that / 8 or the slots if more"

    name: Literal["vicreg"] = Field(description="Which objective this is")
    invariance: float = Field(25.0, ge=0.0, description="Weight of the mean squared difference of the views")
    variance: float = Field(
        25.0,
        ge=0.0,
        description="Weight of what the features' standard deviations lack to 1, a mean over both views",
    )
    covariance: float = Field(
        1.0, ge=0.0, description="Weight of the squared covariances of different features, by d, of both views"
    )
    epsilon: float = Field(1e-4, gt=0.0, description="Added to a variance before its root")

    def faults(self, *, batch_size: int, width: int) -> dict[str, str]:
        """No weight at all, or an epsilon of a term without one."""
        if self.invariance or self.variance or self.covariance:
            return epsilon_fault(self, self.variance)
        return {"invariance": "all three weights are 0, which leaves nothing to minimise; leave them out for 25, 25, 1"}

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """One view's matrix of covariances, as much of it as is held at once."""
        return rows_held(features, ranks) * features
