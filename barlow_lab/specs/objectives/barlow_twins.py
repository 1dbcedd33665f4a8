"""Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.loss_form import DUAL_BELOW, LossFormOrAuto, choose_form, dual_is_exact, numbers_held
from barlow_lab.specs.objectives.base import ObjectiveBase


class BarlowTwinsSpec(ObjectiveBase):
    """Barlow Twins: sum (1 - C_ii)^2 + lambda * sum over i != j of C_ij^2 (Zbontar et al. 2021, equation 1)."""

    implementation: ClassVar[str] = "trainer.objectives.barlow_twins:BarlowTwins"
    memory_words: ClassVar[str] = (
        "b x d^2 for a direct loss, that / 8 or the slots if more for a sharded one, b x ((batch / slots)^2 + "
        "2 x batch x d with several slots) for a dual one"
    )

    name: Literal["barlow_twins"] = Field("barlow_twins", description="Which objective this is")
    lambda_: float = Field(
        0.0051, gt=0.0, alias="lambda",
        description="Weight of what is off the diagonal; the default is the reference code's, for a last projector "
        "width of 8192",
    )  # fmt: skip
    form: LossFormOrAuto = Field(
        "auto",
        description="One of three exact ways to the same loss: `direct` holds the matrix of features, `dual` that of "
        "samples, `sharded` that of features a part at a time; `auto` takes the cheapest that is exact and fits",
    )

    def faults(self, *, batch_size: int, width: int) -> dict[str, str]:
        """The dual form where its float32 is not exact."""
        if self.form != "dual" or dual_is_exact(batch_size, width):
            return {}
        return {
            "form": f"objective.form dual is exact in float32 only for a batch_size below {DUAL_BELOW:g} of the last "
            f"projector width, and {batch_size} is not below {DUAL_BELOW * width:g}; leave it out, "
            "lower batch_size, or widen the projector"
        }

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """Those of the form that is taken."""
        form = choose_form(samples, features, ranks) if self.form == "auto" else self.form
        return numbers_held(form, samples, features, ranks)
