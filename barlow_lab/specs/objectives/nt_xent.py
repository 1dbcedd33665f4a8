"""NT-Xent, the objective of SimCLR (Chen, Kornblith, Norouzi, Hinton 2020, arXiv 2002.05709)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.objectives.base import ObjectiveBase
from barlow_lab.specs.objectives.contrast import numbers_of_cosines
from barlow_lab.specs.objectives.temperature import OfCosines


class NtXentSpec(ObjectiveBase):
    """NT-Xent: each of the 2 N views of a batch is to be told by its other view among the 2 N - 1 others.

    The temperature is that of its authors' published code for ImageNet; for CIFAR-10 it has 0.5.
    """

    implementation: ClassVar[str] = "trainer.objectives.nt_xent:NtXent"
    memory_words: ClassVar[str] = (
        "b x (2 x batch / slots x d, with several slots 2 x batch x d more, 8 x batch, and two blocks of 2^22 cosines, "
        "or of all batch / slots x 2 x batch where those are fewer)"
    )

    name: Literal["nt_xent"] = Field(description="Which objective this is")
    temperature: OfCosines = Field(0.1, description="The cosines are divided by it, tau; above 0")

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """Views with length 1, and blocks of their cosines with all 2 N views."""
        return numbers_of_cosines(samples=samples, columns=2 * samples, features=features, ranks=ranks)
