"""Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230), and what its ablations vary."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.loss_form import (
    DUAL_BELOW,
    LossForm,
    LossFormOrAuto,
    choose_form,
    dual_is_exact,
    numbers_held,
    rows_held,
)
from barlow_lab.specs.objectives.base import ObjectiveBase
from barlow_lab.specs.objectives.temperature import OfCorrelations

Loss = Literal["squares", "cross_entropy"]
LossTerms = Literal["both", "on_diagonal", "off_diagonal"]
Normalisation = Literal["pearson", "none", "feature"]
Redundancy = Literal["cross", "auto", "auto_a"]


class BarlowTwinsSpec(ObjectiveBase):
    """Barlow Twins: sum (1 - C_ii)^2 + lambda * sum over i != j of C_ij^2 (Zbontar et al. 2021, equation 1)."""

    implementation: ClassVar[str] = "trainer.objectives.barlow_twins:BarlowTwins"
    memory_words: ClassVar[str] = (
        "b x d^2 for a direct loss, that / 8 or the slots if more for a sharded one, b x ((batch / slots)^2 + "
        "2 x batch x d with several slots) for a dual one, b x 3 x d^2 for cross_entropy, and b x batch / slots x "
        "(6 x d for normalisation feature + 3 x predictor_width + 2 x d for a predictor)"
    )

    name: Literal["barlow_twins"] = Field("barlow_twins", description="Which objective this is")
    lambda_: float = Field(
        0.0051,
        gt=0.0,
        alias="lambda",
        description="Weight of what is off the diagonal; the default is the reference code's, for a last projector "
        "width of 8192; the paper writes 0.005",
    )
    form: LossFormOrAuto = Field(
        "auto",
        description="One of three exact ways to the same loss: `direct` holds the matrix of features, `dual` that of "
        "samples, `sharded` that of features a part at a time; `auto` takes the cheapest that is exact and fits",
    )
    normalisation: Normalisation = Field(
        "pearson",
        description="What makes C of the embeddings: `pearson` correlates over the batch; `none` leaves the lengths of "
        "features, so that C is a covariance, by N; `feature` scales the rows of standardised features to length 1",
    )
    factor: float | None = Field(
        None,
        gt=0.0,
        description="Of normalisation `feature`: what C is multiplied with; left out: the width of the embeddings, by "
        "which the identity can be reached. The paper does not say its own",
    )
    redundancy: Redundancy = Field(
        "cross",
        description="Of which matrix the off-diagonal term is: `cross` is C, of both views; `auto` that of each view "
        "with itself, the mean of both; `auto_a` that of view a alone",
    )
    terms: LossTerms = Field("both", description="Which of the loss's two terms there are")
    loss: Loss = Field(
        "squares", description="`squares` is equation 1, `cross_entropy` the paper's ablation with logarithms"
    )
    temperature: OfCorrelations | None = Field(
        None, description="Of `cross_entropy`, which needs one: the paper does not publish its own"
    )
    stop_gradient: bool = Field(False, description="Whether no gradient goes through view b")
    predictor_width: int | None = Field(
        None,
        ge=2,
        le=65536,
        description="Hidden width of a predictor on view a, Linear-BN-ReLU-Linear; the paper's ablation takes the "
        "width of the embeddings. Left out: no predictor",
    )

    @property
    def dual_is_bounded(self) -> bool:
        """Whether the diagonal is near 1 at every feature, as the dual form's difference of sums needs it."""
        pulled = self.terms == "both" or self.redundancy != "cross"
        return self.normalisation == "pearson" and pulled

    def form_taken(self, *, samples: int, features: int, ranks: int) -> LossForm:
        """The form of the squares' products."""
        if self.form != "auto":
            return self.form
        if self.dual_is_bounded:
            return choose_form(samples, features, ranks)
        return "direct" if rows_held(features, ranks) == features else "sharded"

    def faults(self, *, batch_size: int, width: int) -> dict[str, str]:
        """What is not exact, has no least value, or is of something that is not asked for."""
        found = {}
        if self.form != "auto" and (said := self._fault_of_form(self.form, batch_size, width)):
            found["form"] = said
        if self.factor is not None and self.normalisation != "feature":
            found["factor"] = (
                f"objective.factor multiplies the matrix of normalisation feature; of {self.normalisation} it would "
                "be another loss; leave it out, or set `normalisation: feature`"
            )
        if self.redundancy != "cross" and self.terms == "on_diagonal":
            found["redundancy"] = (
                f"objective.redundancy {self.redundancy} says which matrix the off-diagonal term is of, and with terms "
                "on_diagonal there is none; leave one of the two out"
            )
        if self.loss == "cross_entropy" and self.normalisation == "none":
            found["loss"] = (
                "cross_entropy has no least value without a normalisation: -log sum e^(C_ii / temperature) falls "
                "without end as the embeddings grow; use normalisation pearson or feature, or loss squares"
            )
        if self.loss == "cross_entropy" and self.temperature is None:
            found["temperature"] = (
                "cross_entropy needs a temperature, and the paper does not publish its own; write one out, as "
                "`temperature: 0.1`, and lambda beside it, whose default is that of the squares"
            )
        if self.loss == "squares" and self.temperature is not None:
            found["temperature"] = "only loss cross_entropy has a temperature; leave it out, or set `loss` to that"
        if self.terms == "on_diagonal" and self.lambda_ != BarlowTwinsSpec.model_fields["lambda_"].default:
            found["lambda"] = (
                "objective.lambda weighs the off-diagonal term, and terms on_diagonal has none; leave one of the two "
                "out"
            )
        if self.stop_gradient and self.terms == "off_diagonal" and self.redundancy == "auto_a":
            found["stop_gradient"] = (
                "terms off_diagonal of redundancy auto_a are of view a alone, so no gradient goes through view b "
                "anyhow; leave it out"
            )
        return found

    def _fault_of_form(self, form: LossForm, batch_size: int, width: int) -> str | None:
        if self.terms == "on_diagonal":
            return (
                f"objective.form {form} is a way to the off-diagonal term, and terms on_diagonal has none; leave it out"
            )
        if self.loss == "cross_entropy":
            if form == "direct":
                return "cross_entropy has all entries of C at once in any case; leave objective.form out"
            return (
                f"objective.form {form} never has all entries of C at once, and cross_entropy's logarithm is of a sum "
                "over them; leave it out"
            )
        if form != "dual":
            return None
        if not self.dual_is_bounded:
            return (
                "objective.form dual takes the off-diagonal sum as |C|^2 less that of C_ii^2, which float32 resolves "
                "only where every C_ii is drawn to 1, by normalisation pearson and the on-diagonal term; leave it out"
            )
        if dual_is_exact(batch_size, width):
            return None
        return (
            f"objective.form dual is exact in float32 only for a batch_size below {DUAL_BELOW:g} of the last "
            f"projector width, and {batch_size} is not below {DUAL_BELOW * width:g}; leave it out, "
            "lower batch_size, or widen the projector"
        )

    def as_written_out(self, width: int | None) -> BarlowTwinsSpec:
        return self.model_copy(update={"factor": None}) if self.factor is not None and self.factor == width else self

    def trained_numbers(self, features: int) -> int:
        """The predictor's: two matrices and a batch normalisation between them."""
        hidden = self.predictor_width
        return 0 if hidden is None else 2 * features * hidden + 2 * hidden

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """The matrices of the loss, and what backward keeps of the rows before them."""
        rows = samples // ranks
        kept = 2 * rows * 3 * features if self.normalisation == "feature" else 0
        if self.predictor_width is not None:
            kept += rows * (3 * self.predictor_width + 2 * features)
        if self.terms == "on_diagonal":
            return kept
        if self.loss == "cross_entropy":
            return kept + 3 * features * features
        form = self.form_taken(samples=samples, features=features, ranks=ranks)
        return kept + numbers_held(form, samples, features, ranks)
