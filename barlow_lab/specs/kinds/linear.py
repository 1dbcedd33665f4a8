"""Linear evaluation: a classifier on a frozen backbone.

The numbers are those of Zbontar et al. 2021, appendices B.1 and C.1, rates for a batch of 256 images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.augment import USUAL_AUGMENT, AugmentSpec
from barlow_lab.specs.catalogue import Annotations
from barlow_lab.specs.common import Precision
from barlow_lab.specs.faults import Fault, no_whole_batch
from barlow_lab.specs.kinds.base import Example
from barlow_lab.specs.kinds.evaluation import FROZEN_WORDS, EvaluationPrecision, EvaluationSpec
from barlow_lab.specs.protocols import COSINE, EvaluationProtocol, FollowsProtocol, ScheduleSpec
from barlow_lab.specs.rules import Place, Rule
from barlow_lab.specs.slot_memory import SGD_WORDS, VIEW_WORDS, BackboneSizes, OnTop, SlotMemory, formula


def _linear(source: str, epochs: int, rate: float, decay: float, schedule: Mapping[str, object]) -> EvaluationProtocol:
    values = {"epochs": epochs, "learning_rate": rate, "momentum": 0.9, "weight_decay": decay, "batch_size": 256}
    return EvaluationProtocol(1, source, {**values, "schedule": schedule, "augment": USUAL_AUGMENT})


_THIRDS = {"shape": "steps", "after": [1 / 3, 2 / 3], "factor": 0.1}


class LinearSpec(FollowsProtocol, EvaluationSpec):
    """A linear classifier on a frozen backbone; any registered data set with classes can be the target.

    `cached-features` is a short protocol of our own: features of the un-augmented images are computed once and the
    classifier is trained on them, centred and scaled (trainer.evaluation.linear_cached).
    """

    learns_from: ClassVar[tuple[Annotations, ...]] = ("class",)
    headlines: ClassVar[Mapping[str, str]] = {"linear_top1": "top-1"}
    example: ClassVar[Example] = Example(
        "A linear classifier on the frozen features of an untrained backbone",
        {
            "kind": "linear",
            "name": "untrained-linear",
            "data": {"name": "textures"},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
            "images": {"size": 32, "resize": 32},
        },
        name_in_experiment="linear",
    )
    memory_formula: ClassVar[str] = formula(
        "gradients: those of the classifier x b.",
        SGD_WORDS,
        VIEW_WORDS,
        FROZEN_WORDS,
        "features, of cached-features: training images x feature width x 4.",
    )
    PROTOCOLS: ClassVar[Mapping[str, EvaluationProtocol]] = {
        "document": _linear(
            "Zbontar et al. 2021, B.1; facebookresearch/barlowtwins evaluate.py", 100, 0.3, 1e-6, COSINE
        ),
        "cached-features": EvaluationProtocol(
            1,
            "of our own, with the rates of Zbontar et al. 2021, B.1",
            {"epochs": 100, "learning_rate": 0.3, "momentum": 0.9, "weight_decay": 1e-6, "batch_size": 256,
             "schedule": COSINE, "augment": None},
        ),
        "places205": _linear(
            "Zbontar et al. 2021, C.1: two drops, equally spaced; VISSL's schedule has three, after epochs 4, 8 and "
            "12, with Nesterov's momentum and a batch normalisation before the classifier", 14, 0.01, 5e-4, _THIRDS,
        ),
        "inaturalist2018": _linear(
            "Zbontar et al. 2021, C.1: two drops, equally spaced; VISSL's schedule has three, after epochs 24, 48 and "
            "72, with Nesterov's momentum and a batch normalisation before the classifier", 84, 0.01, 5e-4, _THIRDS,
        ),
    }  # fmt: skip

    kind: Literal["linear"] = Field("linear", description="Which kind of job this is")
    protocol: Literal["document", "cached-features", "places205", "inaturalist2018"] = Field(
        "document",
        description="`paper` is that of the Barlow Twins paper, and `document` its former name",
        json_schema_extra={
            "enum": ["paper", "document", "cached-features", "places205", "inaturalist2018"],
            "default": "paper",
        },
    )
    epochs: int = Field(100, ge=1, le=10_000, description="Passes over the training images; left out: the protocol's")
    learning_rate: float = Field(0.3, gt=0.0, description="Peak rate for a batch of 256")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Of SGD; left out: the protocol's")
    weight_decay: float = Field(1e-6, ge=0.0, description="Of all of the classifier; left out: the protocol's")
    schedule: ScheduleSpec = Field(
        default_factory=ScheduleSpec, description="How the rate falls; left out: as the protocol's"
    )
    augment: AugmentSpec | None = Field(default_factory=AugmentSpec, description="Null: with cached-features alone")
    precision: EvaluationPrecision = Field(
        "fp32", description="Of the backbone's products; with cached-features always fp32. fp64 is for tests"
    )

    def rules(self) -> list[Rule]:
        return [*super().rules(), self._augment, self._ranks]

    def _augment(self) -> dict[Place, str]:
        cached = self.protocol == "cached-features"
        if cached == (self.augment is None):
            return {}
        said = "cached features are those of the images as they are; leave augment out"
        return {("augment",): said if cached else "augment is part of this protocol; leave it out for its values"}

    def _ranks(self) -> dict[Place, str]:
        said = self.batch_fault() if self.trains_network else None
        return {("batch_size",): said} if said else {}

    @property
    def trains_network(self) -> bool:
        return self.protocol != "cached-features"

    @property
    def products(self) -> Precision:
        return self.precision if self.trains_network else "fp32"

    @property
    def judged_by(self) -> str:
        if self.trains_network:
            return "trainer.evaluation.linear:run_linear"
        return "trainer.evaluation.linear_cached:run_linear_cached"

    def planned_steps(self, images: int | None, classes: int | None) -> tuple[int | None, int | None]:
        if images is None or not self.trains_network:
            return None, None
        per_epoch = min(images, self.data.limit or images) // self.batch_size
        return per_epoch, per_epoch * self.epochs

    def put_on_top(self, features: int, classes: int | None) -> OnTop:
        return self.classifier(features, classes)

    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        kept = 0 if self.trains_network or images is None else min(images, self.data.limit or images)
        return self.frozen_memory(sizes, classes, features=kept * sizes.features * 4)

    def faults_of_size(self, images: int, classes: int | None, counted: str) -> list[Fault]:
        return no_whole_batch(self.batch_size, images, counted) if self.trains_network else []
