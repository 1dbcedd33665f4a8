"""Semi-supervised evaluation: backbone and classifier trained together on a part of the labels.

The numbers are those of Zbontar et al. 2021, appendix B.2, rates for a batch of 256 images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from barlow_lab.specs.augment import USUAL_AUGMENT, AugmentSpec
from barlow_lab.specs.catalogue import Annotations, DataSetEntry
from barlow_lab.specs.common import Name, Precision, SpecModel, refuse
from barlow_lab.specs.faults import Fault, no_whole_batch
from barlow_lab.specs.kinds.base import Example
from barlow_lab.specs.kinds.evaluation import EvaluationPrecision, EvaluationSpec
from barlow_lab.specs.protocols import COSINE, EvaluationProtocol, FollowsProtocol, ScheduleSpec
from barlow_lab.specs.rules import Place, Rule
from barlow_lab.specs.slot_memory import (
    SGD_WORDS,
    VIEW_WORDS,
    BackboneSizes,
    OnTop,
    SlotMemory,
    activation_bytes,
    formula,
    parameter_bytes,
)


class LabelsSpec(SpecModel):
    """Which training labels are used: a share of them by a list that is always the same, or a list of the server's."""

    percent: float | None = Field(
        None,
        gt=0.0,
        le=100.0,
        description="Share of the images, as many of each class (so 13,000 are 1 of ImageNet, whose published list has "
        "12,811), drawn by `seed`",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of the draw: another one is another list")
    list: Name | None = Field(None, description="A list of file names that datasets.yaml gives the data set")

    @model_validator(mode="after")
    def _one(self) -> LabelsSpec:
        if (self.percent is None) == (self.list is None):
            refuse({("percent",): "give exactly one of percent, for example 1 or 10, and list"})
        if self.list is not None and self.seed:
            refuse({("seed",): "a list is not drawn; leave seed out"})
        return self


def _semi_supervised(source: str, schedule: Mapping[str, object], backbone_rate: float) -> EvaluationProtocol:
    values = {"epochs": 20, "backbone_learning_rate": backbone_rate, "learning_rate": 0.5, "momentum": 0.9}
    return EvaluationProtocol(
        2,
        source,
        {**values, "weight_decay": 0.0, "batch_size": 256, "schedule": schedule, "augment": USUAL_AUGMENT},
        changed="a percentage of the labels is drawn by the whole paths of images, not by their class and file name, "
        "which several may share",
        goes_on_from=1,  # a draw that became another one has another fingerprint
    )


class SemiSupervisedSpec(FollowsProtocol, EvaluationSpec):
    """Backbone and classifier trained together on a small part of the labels."""

    learns_from: ClassVar[tuple[Annotations, ...]] = ("class",)
    headlines: ClassVar[Mapping[str, str]] = {"semi_supervised_top1": "top-1"}
    example: ClassVar[Example] = Example(
        "Backbone and classifier trained together on ten percent of the labels",
        {
            "kind": "semi_supervised",
            "name": "untrained-ten-percent",
            "data": {"name": "textures"},
            "labels": {"percent": 10},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
            "images": {"size": 32, "resize": 32},
            "batch_size": 64,
        },
        name_in_experiment="ten-percent",
    )
    memory_formula: ClassVar[str] = formula(
        "gradients: parameters x b.", SGD_WORDS, VIEW_WORDS, "activations: batch_size / slots x a view's."
    )
    PROTOCOLS: ClassVar[Mapping[str, EvaluationProtocol]] = {
        "document": _semi_supervised(
            "Zbontar et al. 2021, B.2", {"shape": "steps", "after": [12 / 20, 16 / 20], "factor": 0.2}, 0.002
        ),
        "cosine": _semi_supervised("facebookresearch/barlowtwins, README and evaluate.py", COSINE, 0.005),
    }

    kind: Literal["semi_supervised"] = Field("semi_supervised", description="Which kind of job this is")
    protocol: Literal["document", "cosine"] = Field(
        "document",
        description="`paper` is that of the Barlow Twins paper, and `document` its former name",
        json_schema_extra={"enum": ["paper", "document", "cosine"], "default": "paper"},
    )
    labels: LabelsSpec = Field(description="Which of the training labels are used: `{percent: 1}`, or a list")
    epochs: int = Field(20, ge=1, le=10_000, description="Passes over the labelled images; left out: the protocol's")
    backbone_learning_rate: float = Field(0.002, ge=0.0, description="Peak rate of the backbone for a batch of 256")
    learning_rate: float = Field(0.5, gt=0.0, description="Peak rate of the classifier for a batch of 256")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Of SGD; left out: the protocol's")
    weight_decay: float = Field(0.0, ge=0.0, description="Of all parameters; left out: the protocol's")
    schedule: ScheduleSpec = Field(
        default_factory=lambda: ScheduleSpec(shape="steps", after=[12 / 20, 16 / 20], factor=0.2),
        description="How both rates fall; left out: as the protocol's",
    )
    augment: AugmentSpec = Field(
        default_factory=AugmentSpec, description="What a training image goes through; left out: the protocol's"
    )
    precision: EvaluationPrecision = Field("fp32", description="Of the backbone's products. fp64 is for tests")

    def rules(self) -> list[Rule]:
        return [*super().rules(), self._least_batch, self._ranks, self._source]

    def _least_batch(self) -> dict[Place, str]:
        said = "batch normalisation in training mode needs at least 2 images"
        return {("batch_size",): said} if self.batch_size < 2 else {}

    def _ranks(self) -> dict[Place, str]:
        said = self.batch_fault()
        return {("batch_size",): said} if said else {}

    def _source(self) -> dict[Place, str]:
        said = "raw pixels have nothing that could be trained; use random"
        return {("backbone_from", "pixels"): said} if self.backbone_from.pixels else {}

    @property
    def products(self) -> Precision:
        return self.precision

    @property
    def judged_by(self) -> str:
        return "trainer.evaluation.semi_supervised:run_semi_supervised"

    @property
    def labels_in_words(self) -> str | None:
        labels = self.labels
        drawn = "" if not labels.seed else f" (seed {labels.seed})"
        return f"list {labels.list}" if labels.list else f"{labels.percent:g} % of labels{drawn}"

    @property
    def labels_percent(self) -> float:
        return self.labels.percent or 0.0

    def labelled(self, images: int, classes: int | None) -> int | None:
        """Images that it trains on, of `images` in as many classes, as trainer.evaluation's lists of labels are drawn:
        as many of each class, which is all of them if no class is small. None where it is not known here: with a list
        of the server's, or before the number of classes is known."""
        percent = self.labels.percent
        if percent is None or percent == 100:
            return None if percent is None else images
        return None if classes is None else classes * max(1, round(percent / 100 * images / classes))

    def planned_steps(self, images: int | None, classes: int | None) -> tuple[int | None, int | None]:
        labelled = None if images is None else self.labelled(min(images, self.data.limit or images), classes)
        if labelled is None:
            return None, None
        per_epoch = labelled // self.batch_size
        return per_epoch, per_epoch * self.epochs

    def put_on_top(self, features: int, classes: int | None) -> OnTop:
        return self.classifier(features, classes)

    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        trained = (sizes.parameters + self.put_on_top(sizes.features, classes).total) * parameter_bytes(self.precision)
        view = sizes.view_bytes(self.images.size**2) * activation_bytes(self.precision) / 4
        activations = round(-(-self.batch_size // self.resources.slots) * view)
        return SlotMemory(weights=trained, gradients=trained, optimizer=trained, activations=activations)

    def faults_of_annotations(self, entry: DataSetEntry) -> list[Fault]:
        if self.labels.list in (None, *entry.lists):
            return []
        known = f"it has {', '.join(entry.lists)}" if entry.lists else "it has none"
        said = (
            f"{self.data.name} has no list of labelled images {self.labels.list!r}; {known}, see `lists` in "
            "docs/data-sets.md"
        )
        return [Fault("/labels/list", said)]

    def faults_of_size(self, images: int, classes: int | None, counted: str) -> list[Fault]:
        labelled = self.labelled(images, classes)
        if labelled is None:
            return []
        said = f"{self.labels.percent:g} % of the labels are {labelled:,} images: {counted}"
        return no_whole_batch(self.batch_size, labelled, said, or_else=", or more labels")
