"""InfoNCE as the Barlow Twins paper sets it beside its own loss (Zbontar et al. 2021, arXiv 2103.03230, section 5)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.objectives.base import ObjectiveBase
from barlow_lab.specs.objectives.contrast import numbers_of_cosines
from barlow_lab.specs.objectives.temperature import OfCosines


class InfonceSpec(ObjectiveBase):
    """InfoNCE: view a of an image is to be told by its view b among those of the batch, plain cosines by default.

    The sum over negatives leaves the image's own view b out, as in the Barlow Twins paper; `positive_in_sum` takes it
    in, as InfoNCE (arXiv 1807.03748, equation 4) and the contrastive loss over pairs D+ (arXiv 2007.13916) do.
    """

    implementation: ClassVar[str] = "trainer.objectives.infonce:Infonce"
    memory_words: ClassVar[str] = (
        "b x (2 x batch / slots x d, with several slots 2 x batch x d more, 4 x batch, and two blocks of 2^22 cosines, "
        "or of all batch / slots x batch where those are fewer)"
    )

    name: Literal["infonce"] = Field(description="Which objective this is")
    temperature: OfCosines = Field(1.0, description="The cosines are divided by it, tau; 1 leaves them as they are")
    positive_in_sum: bool = Field(
        False,
        description="Whether the image's own view b is among those that its view a is told from. False: the loss is "
        "decoupled, and may be negative",
    )

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """Views with length 1, and blocks of the cosines of one with the other."""
        return numbers_of_cosines(samples=samples, columns=samples, features=features, ranks=ranks)
