"""The network that a pretraining trains: its backbone, which may be frozen, and the projector behind it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from barlow_lab.specs.common import BackboneSpec, SpecModel, refuse


class TrainedBackboneSpec(BackboneSpec):
    """The backbone of a pretraining. A frozen one stays as its seed has made it, and only the projector is trained: so
    one sees what an objective can reach without features."""

    frozen: bool = Field(
        False,
        description="Train the projector alone: the backbone's parameters have no gradient, and are in no optimiser",
    )
    statistics: Literal["frozen", "updated"] | None = Field(
        None,
        description="Of a frozen backbone's batch normalisation. `frozen`, which is meant where it is left out: by the "
        "running statistics that it begins with, 0 and 1, so that its features are those of `backbone_from.random` of "
        "the same seed. `updated`: by those of the batch, as in training, and the running ones follow",
    )

    @model_validator(mode="after")
    def _statistics_of_a_frozen_one(self) -> TrainedBackboneSpec:
        if self.statistics is not None and not self.frozen:
            said = "a backbone that is trained updates its statistics; leave this out, or set frozen: true"
            refuse({("statistics",): said})
        return self

    @property
    def architecture(self) -> BackboneSpec:
        """The network alone, as an evaluation names it."""
        return BackboneSpec.model_construct(**{name: getattr(self, name) for name in BackboneSpec.model_fields})

    @property
    def keeps_statistics(self) -> bool:
        """Whether its batch normalisation is by running statistics that never move."""
        return self.frozen and self.statistics != "updated"

    def as_written_out(self) -> TrainedBackboneSpec:
        """Without what is meant where nothing is said."""
        return self.model_copy(update={"statistics": None}) if self.statistics == "frozen" else self


def _leaves_a_pair(width: Any) -> Any:
    if isinstance(width, int) and width < 2:
        raise ValueError(
            f"a projector of width {width} leaves no two features whose redundancy could be reduced; use at least 2 "
            "(in the Barlow Twins paper, figure 4, accuracy rises from 16 up to 16384)"
        )
    return width


class ProjectorSpec(SpecModel):
    """Linear-BN-ReLU for every width but the last, which is a bare Linear (Barlow Twins paper 2.2).

    One width is a linear projector; `projector: none`, or no width, has the objective see the backbone's features.
    """

    widths: list[Annotated[int, Field(ge=2, le=65536), BeforeValidator(_leaves_a_pair)]] = Field(
        default_factory=lambda: [8192, 8192, 8192],
        max_length=8,
        description="Of its layers, the last one that of the embeddings. One: a linear projector. None ([]): there is "
        "no projector, and the embeddings are the backbone's features",
    )
    batch_norm: bool = Field(
        True,
        description="Batch normalisation between the layers; without it these have biases (Linear-ReLU), as in the "
        "paper's ablation (table 5: 71.2 in place of 71.4 % top-1)",
    )

    @model_validator(mode="before")
    @classmethod
    def _by_word(cls, value: Any) -> Any:
        return {"widths": []} if value == "none" else value

    @property
    def hidden(self) -> list[int]:
        """Widths of the layers before the last."""
        return self.widths[:-1]

    def parameters(self, features: int) -> int:
        """How many it has, behind a backbone of so many features."""
        weights = sum(a * b for a, b in pairwise([features, *self.widths]))
        return weights + (2 if self.batch_norm else 1) * sum(self.hidden)

    def kept_for_backward(self) -> int:
        """Numbers that it keeps of an image: two of a hidden feature with batch normalisation, one without."""
        return (2 if self.batch_norm else 1) * sum(self.hidden) + sum(self.widths[-1:])

    def as_written_out(self) -> ProjectorSpec:
        """Between less than two layers there is nothing to normalise."""
        plain = ProjectorSpec.model_fields["batch_norm"].default
        return self if self.hidden else self.model_copy(update={"batch_norm": plain})
