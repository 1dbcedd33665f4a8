"""The optimizers of a pretraining, rates and decay in true-gradient units."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, SerializeAsAny

from barlow_lab.specs.common import SpecModel


class OptimizerBase(SpecModel):
    """What every optimizer's spec has."""

    running_averages: ClassVar[int] = 1
    """Numbers that it keeps beside each parameter."""

    reference_batch_size: int | None = Field(
        256,
        ge=1,
        description="Rates hold for this batch size and scale linearly with batch_size; null: absolute rates",
    )
    warmup_epochs: float | None = Field(
        None,
        ge=0.0,
        description="Linear warm-up from 0; left out: 10 epochs, or a tenth of a run shorter than 100",
    )
    final_fraction: float = Field(0.001, ge=0.0, le=1.0, description="Rate at the end of the cosine / peak rate")


class LarsSpec(OptimizerBase):
    """LARS of the reference implementation.

    The published bias rate 0.0048 and weight decay 1.5e-6 hide the 32 ranks of the paper's run in their gradient
    (1/W of the true one): in true-gradient units they are 0.0048 / 32 and 1.5e-6 * 32.
    """

    name: Literal["lars"] = Field("lars", description="Which optimizer this is")
    learning_rate: float = Field(0.2, gt=0.0, description="Rate of weight matrices and convolutions")
    bias_learning_rate: float = Field(0.0048 / 32, gt=0.0, description="Rate of biases and normalisation parameters")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="The default is the reference code's")
    weight_decay: float = Field(
        1.5e-6 * 32,
        ge=0.0,
        description="Of weight matrices and convolutions; the default is the paper's, by its 32 ranks",
    )
    trust_coefficient: float = Field(
        0.001, gt=0.0, description="Length of a layer's update / length of its weights, at rate 1; the reference code's"
    )


class SgdSpec(OptimizerBase):
    """SGD with momentum; weight decay on weight matrices and convolutions only."""

    name: Literal["sgd"] = Field(description="Which optimizer this is")
    learning_rate: float = Field(
        0.05, gt=0.0, description="Peak rate; a usual one for 256 images, of no paper's run here"
    )
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Part of the last update that is taken again")
    nesterov: bool = Field(False, description="Nesterov's momentum")
    weight_decay: float = Field(1e-4, ge=0.0, description="Of weight matrices and convolutions")


class AdamwSpec(OptimizerBase):
    """AdamW; weight decay on weight matrices and convolutions only."""

    running_averages: ClassVar[int] = 2

    name: Literal["adamw"] = Field(description="Which optimizer this is")
    learning_rate: float = Field(1e-3, gt=0.0, description="Peak rate; the default is torch's")
    betas: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]] = Field(
        (0.9, 0.999), description="How much the running averages of gradient and its square keep; torch's"
    )
    weight_decay: float = Field(0.01, ge=0.0, description="Of weight matrices and convolutions; the default is torch's")


class OptimizerElsewhere(SpecModel):
    """A stored one that this version does not have: its name, and no more is asked of it; the rest as it is."""

    model_config = ConfigDict(extra="allow")

    name: str


OptimizerSpec = Annotated[SerializeAsAny[LarsSpec | SgdSpec | AdamwSpec], Field(discriminator="name")]
