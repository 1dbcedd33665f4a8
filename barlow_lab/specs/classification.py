"""Evaluations that train a classifier on labelled images: linear, semi-supervised, support vector machines.

The numbers are those of Zbontar et al. 2021, appendices B.1, B.2 and C.1, rates for a batch of 256 images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from barlow_lab.specs.common import Name, SpecModel, ranks_fault, refuse
from barlow_lab.specs.evaluation import EvaluationSpec
from barlow_lab.specs.protocols import FollowsProtocol, Protocol, ScheduleSpec
from barlow_lab.specs.views import PositiveRange, Probability

EvaluationPrecision = Literal["fp32", "bf16", "fp64"]
"""fp64 is for tests."""

_COSINE = {"shape": "cosine"}
_AUGMENT = {"crop_scale": (0.08, 1.0), "crop_ratio": (3 / 4, 4 / 3), "flip": 0.5}


class AugmentSpec(SpecModel):
    """What a training image goes through: a random crop, resized (bilinear) to images.size, and a flip."""

    crop_scale: PositiveRange = Field((0.08, 1.0), description="Area of the random crop, as a fraction of the image")
    crop_ratio: PositiveRange = Field((3 / 4, 4 / 3), description="Width / height of the random crop")
    flip: Probability = Field(0.5, description="Horizontal flip")

    @model_validator(mode="after")
    def _ranges(self) -> AugmentSpec:
        faults: dict[tuple[str, ...], str] = {}
        for place, (low, high) in (("crop_scale", self.crop_scale), ("crop_ratio", self.crop_ratio)):
            if low > high:
                faults[place,] = f"the lower end {low} is above the upper end {high}; swap them"
        if max(self.crop_scale) > 1:
            faults["crop_scale",] = f"a crop cannot cover {max(self.crop_scale)} of the image; use at most 1"
        refuse(faults)
        return self


def _batch_fault(spec: EvaluationSpec) -> str | None:
    """What is wrong with the batch of a training on images, as far as it is known before the data are."""
    batch, limit = spec.batch_size, spec.data.limit
    if limit is not None and batch > limit:
        return (
            f"batch_size {batch} is above data.limit {limit}: the last partial batch is dropped, so there would be no "
            f"step at all; use at most {limit}"
        )
    return ranks_fault(batch, spec.resources.slots)


def _linear(source: str, epochs: int, rate: float, decay: float, schedule: Mapping[str, object]) -> Protocol:
    values = {"epochs": epochs, "learning_rate": rate, "momentum": 0.9, "weight_decay": decay, "batch_size": 256}
    return Protocol(1, source, {**values, "schedule": schedule, "augment": _AUGMENT})


_THIRDS = {"shape": "steps", "after": [1 / 3, 2 / 3], "factor": 0.1}


class LinearSpec(FollowsProtocol, EvaluationSpec):
    """A linear classifier on a frozen backbone; any registered data set with classes can be the target.

    `cached-features` is a short protocol of our own: features of the un-augmented images are computed once and the
    classifier is trained on them, centred and scaled (trainer.evaluation.linear_cached).
    """

    PROTOCOLS: ClassVar[Mapping[str, Protocol]] = {
        "document": _linear(
            "Zbontar et al. 2021, B.1; facebookresearch/barlowtwins evaluate.py", 100, 0.3, 1e-6, _COSINE
        ),
        "cached-features": Protocol(
            1,
            "of our own, with the rates of Zbontar et al. 2021, B.1",
            {"epochs": 100, "learning_rate": 0.3, "momentum": 0.9, "weight_decay": 1e-6, "batch_size": 256,
             "schedule": _COSINE, "augment": None},
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

    kind: Literal["linear"] = "linear"
    protocol: Literal["document", "cached-features", "places205", "inaturalist2018"] = "document"
    epochs: int = Field(100, ge=1, le=10_000)
    learning_rate: float = Field(0.3, gt=0.0, description="Peak rate for a batch of 256")
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(1e-6, ge=0.0)
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec)
    augment: AugmentSpec | None = Field(default_factory=AugmentSpec, description="Null: with cached-features alone")
    precision: EvaluationPrecision = "fp32"

    @model_validator(mode="after")
    def _fits_protocol(self) -> LinearSpec:
        cached = self.protocol == "cached-features"
        if cached != (self.augment is None):
            said = "cached features are those of the images as they are; leave augment out"
            refuse({("augment",): said if cached else "augment is part of this protocol; leave it out for its values"})
        if not cached and (fault := _batch_fault(self)):
            refuse({("batch_size",): fault})
        return self


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


def _semi_supervised(source: str, schedule: Mapping[str, object], backbone_rate: float) -> Protocol:
    values = {"epochs": 20, "backbone_learning_rate": backbone_rate, "learning_rate": 0.5, "momentum": 0.9}
    return Protocol(
        2,
        source,
        {**values, "weight_decay": 0.0, "batch_size": 256, "schedule": schedule, "augment": _AUGMENT},
        changed="a percentage of the labels is drawn by the whole paths of images, not by their class and file name, "
        "which several may share",
        goes_on_from=1,  # a draw that became another one has another fingerprint
    )


class SemiSupervisedSpec(FollowsProtocol, EvaluationSpec):
    """Backbone and classifier trained together on a small part of the labels."""

    PROTOCOLS: ClassVar[Mapping[str, Protocol]] = {
        "document": _semi_supervised(
            "Zbontar et al. 2021, B.2", {"shape": "steps", "after": [12 / 20, 16 / 20], "factor": 0.2}, 0.002
        ),
        "cosine": _semi_supervised("facebookresearch/barlowtwins, README and evaluate.py", _COSINE, 0.005),
    }

    kind: Literal["semi_supervised"] = "semi_supervised"
    protocol: Literal["document", "cosine"] = "document"
    labels: LabelsSpec
    epochs: int = Field(20, ge=1, le=10_000)
    backbone_learning_rate: float = Field(0.002, ge=0.0, description="Peak rate of the backbone for a batch of 256")
    learning_rate: float = Field(0.5, gt=0.0, description="Peak rate of the classifier for a batch of 256")
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0)
    schedule: ScheduleSpec = Field(
        default_factory=lambda: ScheduleSpec(shape="steps", after=[12 / 20, 16 / 20], factor=0.2)
    )
    augment: AugmentSpec = Field(default_factory=AugmentSpec)
    precision: EvaluationPrecision = "fp32"

    @model_validator(mode="after")
    def _combinations(self) -> SemiSupervisedSpec:
        faults: dict[tuple[str, ...], str] = {}
        if fault := _batch_fault(self):
            faults["batch_size",] = fault
        if self.batch_size < 2:
            faults["batch_size",] = "batch normalisation in training mode needs at least 2 images"
        if self.backbone_from.pixels:
            faults["backbone_from", "pixels"] = "raw pixels have nothing that could be trained; use random"
        refuse(faults)
        return self


_VISSL_COSTS = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)


class SvmSpec(FollowsProtocol, EvaluationSpec):
    """One-vs-rest support vector machines on frozen features; the score is the mean average precision of the classes.

    On a data set of single labels every image is a negative of all classes but its own.
    """

    PROTOCOLS: ClassVar[Mapping[str, Protocol]] = {
        "voc07": Protocol(
            1,
            "Zbontar et al. 2021, C.1 (C by cross-validation, as PIRL) with costs, folds and class weights of VISSL's "
            "VOC07 benchmark, which PIRL's authors published; Goyal et al. 2019 try 26 costs, 2^-19..2^-4 and "
            "1e-7..1e2, PCL fixes C = 0.5. Otherwise than in VISSL, images are cut to their centre, not squashed to "
            "224 x 224 (images: {resize: 224, resize_to: square} does that), features are averaged over the whole "
            "image, not over 2 x 2 parts of it (8,192 numbers), and images with only difficult objects of a class are "
            "left out of its training as well as of its test, not trained on as negatives. VISSL's and PCL's numbers "
            "are map_all_points",
            {"costs": _VISSL_COSTS, "folds": 3},
        )
    }

    kind: Literal["svm"] = "svm"
    protocol: Literal["voc07"] = "voc07"
    costs: list[Annotated[float, Field(gt=0.0)]] = Field(
        default_factory=lambda: list(_VISSL_COSTS), min_length=1, max_length=50,
        description="Among which each class's C is chosen",
    )  # fmt: skip
    folds: int = Field(3, ge=2, le=20)

    @property
    def score_names(self) -> tuple[str, ...]:
        return "map_11_point", "map_all_points"
