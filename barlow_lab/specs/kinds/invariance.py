"""Evaluation by the representation invariance score: do units that know a class keep to it under transformations?"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from barlow_lab.specs.catalogue import Annotations, backbones, network_of
from barlow_lab.specs.common import SpecModel, refuse
from barlow_lab.specs.faults import Fault
from barlow_lab.specs.kinds.base import Example
from barlow_lab.specs.kinds.evaluation import FROZEN_WORDS, EvaluationSpec
from barlow_lab.specs.rules import Place, Rule
from barlow_lab.specs.slot_memory import VIEW_WORDS, BackboneSizes, SlotMemory, formula

_LEAST_RATE = Fraction(5, 100)


class CropRange(SpecModel):
    """Windows of the image at any place, brought to `images.size`."""

    area: float = Field(0.25, gt=0.0, lt=1.0, description="Least part of the image's area that a window shows; most: 1")


class ColourRange(SpecModel):
    """Brightness, contrast, saturation and hue, all four at once, in this order."""

    brightness: float = Field(0.4, ge=0.0, le=1.0, description="Factors from 1 less this to 1 and this")
    contrast: float = Field(0.4, ge=0.0, le=1.0, description="Factors from 1 less this to 1 and this")
    saturation: float = Field(0.4, ge=0.0, le=1.0, description="Factors from 1 less this to 1 and this")
    hue: float = Field(0.1, ge=0.0, le=0.5, description="Turns of the colour circle, back and forth by this much")

    @model_validator(mode="after")
    def _some(self) -> ColourRange:
        if not any(value for _, value in self):
            said = "with all four at 0 every step is the image itself; raise one of them, or leave colour out (null)"
            refuse({("hue",): said})
        return self


class BlurRange(SpecModel):
    """Gaussian blur, in equal steps from none."""

    sigma: float = Field(
        0.02, gt=0.0, le=0.25,
        description="Largest standard deviation as a part of the image's side: 0.02 is 4.5 pixels of 224",
    )  # fmt: skip


class RotationRange(SpecModel):
    """Turns about the centre, in equal steps; what comes in from outside is the image reflected at its edge."""

    degrees: float = Field(30.0, gt=0.0, lt=180.0, description="Largest angle, to either side")


class ScaleRange(SpecModel):
    """Enlargements of the centre, in equal ratios from 1."""

    factor: float = Field(2.0, gt=1.0, le=8.0, description="Largest enlargement of what the image shows")


class TransformationRanges(SpecModel):
    """What an image is taken through, and how far; null leaves a transformation out."""

    crop: CropRange | None = Field(default_factory=CropRange, description="Windows at any place")
    colour: ColourRange | None = Field(default_factory=ColourRange, description="Colours")
    blur: BlurRange | None = Field(default_factory=BlurRange, description="Blur")
    rotation: RotationRange | None = Field(default_factory=RotationRange, description="Turns")
    scale: ScaleRange | None = Field(default_factory=ScaleRange, description="Enlargements")

    @property
    def names(self) -> tuple[str, ...]:
        """The transformations that are not left out, in the order of the fields."""
        return tuple(name for name, one in self if one is not None)

    @model_validator(mode="after")
    def _some(self) -> TransformationRanges:
        if not self.names:
            refuse({("crop",): "there is no transformation left to be invariant to; leave at least one of them in"})
        return self


class InvarianceSpec(EvaluationSpec):
    """Representation invariance score: how much of the time the units that know a class fire along the trajectories of
    its images, for each type of transformation, beside the score of trajectories whose images were exchanged.

    Firing thresholds are of the images of `data.split`, trajectories of those of `test_split`.
    """

    learns_from: ClassVar[tuple[Annotations, ...]] = ("class",)
    headlines: ClassVar[Mapping[str, str]] = {"invariance_ris": "RIS", "invariance_shuffled": "RIS, shuffled"}
    example: ClassVar[Example] = Example(
        "How invariant the features of an untrained backbone are, by type of transformation",
        {
            "kind": "invariance",
            "name": "untrained-invariance",
            "data": {"name": "textures"},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
            "images": {"size": 32, "resize": 32},
        },
        name_in_experiment="invariance",
    )
    memory_formula: ClassVar[str] = formula(
        VIEW_WORDS,
        FROZEN_WORDS,
        "features: the larger of training images / slots x feature width x 4, from which thresholds are made, and "
        "classes x images_per_class x steps / slots x feature width x 1, which of them fire.",
    )

    kind: Literal["invariance"] = Field("invariance", description="Which kind of job this is")
    procedure: Literal["formula", "demystifying"] = Field(
        "formula",
        description="`formula`: as the score is written, with one sign a unit and a rate of 1 / classes; "
        "`demystifying`: as the code of Purushwalkam and Gupta 2020 computes it (docs/evaluation.md)",
    )
    top_units: int = Field(
        10, ge=1, description="K: units of each class whose mean is its score; published rows have 10 and 25"
    )
    images_per_class: int = Field(
        50, ge=1, description="Images of each class of test_split that have trajectories, drawn by the seed; fewer "
        "where there are fewer"
    )  # fmt: skip
    steps: int = Field(9, ge=3, le=100, description="Images of a trajectory, the same for every image")
    transformations: TransformationRanges = Field(
        default_factory=TransformationRanges, description="What images are taken through, and how far"
    )

    @property
    def score_names(self) -> tuple[str, ...]:
        of = self.transformations.names
        return tuple(score if name is None else f"{score}_{name}" for name in (None, *of) for score in SCORES)

    @property
    def protocol_name(self) -> str:
        return f"{self.kind}/1" if self.procedure == "formula" else f"{self.kind}-{self.procedure}/1"

    def firing_rate(self, classes: int) -> Fraction:
        """G, the part of the images on which each unit is made to fire."""
        rate = Fraction(1, classes)
        return rate if self.procedure == "formula" else max(rate, _LEAST_RATE)

    def rules(self) -> list[Rule]:
        return [*super().rules(), self._units]

    def _units(self) -> dict[Place, str]:
        source = self.backbone_from
        if source.pixels:
            width = 3 * self.images.size**2
        else:
            name = network_of(source.torchvision) if source.torchvision else self.backbone and self.backbone.name
            if name not in backbones():
                return {}
            width = backbones()[name].features
        said = units_fault(self.top_units, width)
        return {("top_units",): said} if said else {}

    @property
    def trains_network(self) -> bool:
        return False

    @property
    def judged_by(self) -> str:
        return "trainer.evaluation.invariance.running:run_invariance"

    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        slots = self.resources.slots
        kept = 0 if images is None else -(-min(images, self.data.limit or images) // slots) * 4
        fired = -(-(classes or 0) * self.images_per_class // slots) * self.steps
        return self.frozen_memory(sizes, classes, features=max(kept, fired) * sizes.features)

    def faults_of_size(self, images: int, classes: int | None, counted: str) -> list[Fault]:
        if classes is None:
            return []
        if classes < 2:
            said = "a unit knows a class by not firing for others: there have to be two classes or more; "
            return [Fault("/data/name", f"{said}{self.data.name} has {classes}; take another data set")]
        if images < classes:
            said = f"a unit that fires on one in {classes:,} of {images:,} images never fires: {counted}; "
            return [Fault("/data/limit" if self.data.limit else "/data/split", f"{said}use at least {classes:,}")]
        return []

    def faults_of_source(self, network: str) -> list[Fault]:
        entry = backbones().get(network)
        said = units_fault(self.top_units, entry.features) if entry is not None else None
        return [*super().faults_of_source(network), *([] if said is None else [Fault("/top_units", said)])]


SCORES = ("ris", "shuffled")
"""Of all transformations together, and of each by its name: `ris_blur`."""


def units_fault(top_units: int, width: int) -> str | None:
    """Why so many units of `width` cannot be taken, with the remedy; None if they can."""
    if top_units <= width:
        return None
    return f"the {top_units:,} best of {width:,} units, which are all that the backbone has; use fewer"
