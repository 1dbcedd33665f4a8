"""The information bottleneck of Barlow Twins' appendix A (Zbontar et al. 2021, arXiv 2103.03230)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from barlow_lab.specs.common import refuse
from barlow_lab.specs.objectives.base import ObjectiveBase

DEFAULT_LAMBDA = 0.99
"""beta 100. A direction of variance 1 whose views correlate by r costs log(1 - r) when it is there and
(1 - lambda) log eps when it is not, and is given up while r < 1 - eps^(1 - lambda): at 0.99 while r < 0.07, at 0.5
(beta 2) while r < 0.97. An untrained network has r of about 0.1."""

ROUNDING = 2.0**-24
"""Of a float32 product, by its size."""


class InformationBottleneckSpec(ObjectiveBase):
    """The information bottleneck under the Gaussian assumption: log |C_Z|X| - lambda * log |C_Z| (Zbontar et al. 2021,
    equation 8), of standardised features, with one floor in both.

    The paper gives neither beta nor any number for it: it says that optimising the determinants "does not lead to SoTA
    solutions". The defaults are ours.
    """

    implementation: ClassVar[str] = "trainer.objectives.information_bottleneck:InformationBottleneck"
    memory_words: ClassVar[str] = (
        "b x (7 x d^2 + 8 x batch / slots x d), for d^2 (2 x batch)^2 where that is less, with 2 x batch x d more on "
        "several slots: a matrix is factorised in float64"
    )

    name: Literal["information_bottleneck"] = Field(description="Which objective this is")
    beta: float | None = Field(
        None,
        description="How much more invariance counts than information (equation 5), above 1; in the place of lambda",
    )
    lambda_: float | None = Field(
        None,
        alias="lambda",
        description="Weight of log |C_Z|, (beta - 1) / beta, in (0, 1); left out with beta: 0.99, that is beta 100",
    )
    floor: float = Field(
        1e-3,
        gt=0.0,
        le=1.0,
        description="Added to the diagonal of both covariances, whose features have variance 1: without it the loss "
        "has no least value, and a covariance may have no log-determinant",
    )
    shrinkage: Literal["none", "oas"] = Field(
        "none",
        description="`oas`: draw both covariances towards a multiple of the identity, by as much as the oracle "
        "approximating shrinkage of Chen et al. 2010 (arXiv 0907.4698) says of each batch; it is recorded",
    )

    @property
    def weight(self) -> float:
        """Lambda, as given by itself or by beta."""
        if self.beta is not None:
            return (self.beta - 1) / self.beta
        return DEFAULT_LAMBDA if self.lambda_ is None else self.lambda_

    @model_validator(mode="after")
    def _trades_off(self) -> InformationBottleneckSpec:
        faults: dict[tuple[str, ...], str] = {}
        if self.beta is not None and self.beta <= 1:
            faults["beta",] = (
                f"beta {self.beta:g} is not above 1: information about the image then counts less than what is lost of "
                "it, and the best embedding is one that does not depend on the image (Barlow Twins paper, appendix A); "
                "use more than 1, rather 10 or more, or leave it out for 100"
            )
        elif self.beta is not None and self.weight >= 1:
            faults["beta",] = (
                f"beta {self.beta:g} is so large that lambda, (beta - 1) / beta, is 1 in float64; use less, such as "
                "1e6, or leave it out for 100"
            )
        if self.lambda_ is not None and not 0 < self.lambda_ < 1:
            why = "the best embedding does not depend on the image" if self.lambda_ <= 0 else "no beta has it"
            faults["lambda",] = (
                f"lambda {self.lambda_:g} is not between 0 and 1, and {why}: it is (beta - 1) / beta, in (0, 1) for "
                "every beta above 1; it is not the lambda of Barlow Twins. Leave it out for 0.99"
            )
        if self.beta is not None and self.lambda_ is not None:
            faults.setdefault(
                ("beta",), "beta and lambda say the same: lambda = (beta - 1) / beta; leave one of them out"
            )
        refuse(faults)
        return self

    def faults(self, *, batch_size: int, width: int) -> dict[str, str]:
        """A floor that is lost in the rounding of float32."""
        least = self.least_floor(width)
        if self.floor >= least:
            return {}
        return {
            "floor": f"a floor of {self.floor:g} is below what float32 resolves of covariances of {width} features, "
            f"{least:.2g}: they could come out with no log-determinant; use that or more"
        }

    @staticmethod
    def least_floor(width: int) -> float:
        """Twice the rounding of a float32 covariance of `width` features of variance 1, in its eigenvalues."""
        return 2 * width * ROUNDING

    def as_written_out(self, width: int | None) -> InformationBottleneckSpec:
        lambda_ = None if self.weight == DEFAULT_LAMBDA else self.weight
        return self.model_copy(update={"beta": None, "lambda_": lambda_})

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """One matrix, its factor and its inverse in float64, this rank's rows and what pulls them; with several ranks
        the rows of all."""
        side = min(features, 2 * samples)
        gathered = 2 * samples * features if ranks > 1 and side < features else 0
        return 7 * side * side + 8 * (samples // ranks) * features + gathered
