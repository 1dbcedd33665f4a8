"""SimSiam (Chen, He 2021, arXiv 2011.10566)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.objectives.base import ObjectiveBase


class SimsiamSpec(ObjectiveBase):
    """SimSiam: each view, through a predictor, is drawn to the other one, through which no gradient goes.

    Values are those of the reference code (facebookresearch/simsiam) and of the command in its README.
    """

    implementation: ClassVar[str] = "trainer.objectives.simsiam:Simsiam"
    memory_words: ClassVar[str] = "b x 2 x batch / slots x (6 x d + 3 x predictor_width) for what backward needs"

    name: Literal["simsiam"] = Field(description="Which objective this is")
    predictor_width: int | None = Field(
        None,
        ge=2,
        le=65536,
        description="Hidden width of the predictor; left out: a quarter of the embeddings' width, as 512 of 2048",
    )
    constant_predictor_rate: bool = Field(
        True, description="Whether the predictor keeps the peak learning rate, without warm-up and cosine"
    )
    stop_gradient: bool = Field(
        True, description="Whether no gradient goes through the other view; without it the embeddings collapse"
    )
    standardise: bool = Field(
        True,
        description="Whether the embeddings are first normalised over the batch, by feature and view, with 1e-5 beside "
        "the variance: the batch normalisation without parameters at the end of the reference code's projector",
    )

    def hidden_width(self, features: int) -> int:
        """Of the predictor of embeddings of `features`."""
        return _quarter(features) if self.predictor_width is None else self.predictor_width

    def as_written_out(self, width: int | None) -> SimsiamSpec:
        usual = width is not None and self.predictor_width == _quarter(width)
        return self.model_copy(update={"predictor_width": None}) if usual else self

    def trained_numbers(self, features: int) -> int:
        """The predictor's: two matrices, a batch normalisation between them, and a bias."""
        hidden = self.hidden_width(features)
        return 2 * features * hidden + 2 * hidden + features

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """What its graph keeps of both views: standardised, predicted and unit rows, and the hidden layer's."""
        return 2 * (samples // ranks) * (6 * features + 3 * self.hidden_width(features))


def _quarter(features: int) -> int:
    return max(2, features // 4)
