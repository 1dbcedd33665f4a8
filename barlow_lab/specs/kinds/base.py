"""What every kind of job has, and what it tells by itself, so that service, worker and trainer ask and name none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from barlow_lab.specs.catalogue import Annotations, DataSetEntry
from barlow_lab.specs.common import (
    BackboneFrom,
    BackboneSpec,
    DataSpec,
    Name,
    Precision,
    ResourcesSpec,
    RunSpec,
    SpecModel,
    refuse,
)
from barlow_lab.specs.faults import Fault, SplitUse
from barlow_lab.specs.rules import UNJUDGED, Rule, refused_by
from barlow_lab.specs.slot_memory import BackboneSizes, OnTop, SlotMemory


@dataclass(frozen=True, slots=True)
class BackboneMade:
    """A backbone that a job trains and publishes."""

    backbone: BackboneSpec
    trained_at: int
    """Side in pixels of the views that it is trained on."""


@dataclass(frozen=True, slots=True)
class Example:
    """A job of a kind as the API's documentation shows it: it runs anywhere, in a minute or two."""

    summary: str
    value: Mapping[str, Any]
    name_in_experiment: str
    """What it is called in the example of an experiment, where an evaluation judges the pretraining."""
    changes_in_experiment: Mapping[str, Any] = field(default_factory=dict)


class JobSpec(SpecModel):
    """Fields of every job kind, and what is said of a stored job of a kind that is not known here."""

    headlines: ClassVar[Mapping[str, str]] = {}
    """Metrics that say most of such a job, what one looks for first in front, and a word for each."""

    spec_version: Literal[1] = Field(1, description="Version of the format of specs; there is one so far")
    name: Name | None = Field(None, description="Shown in lists; unique within an experiment")
    data: DataSpec = Field(description="The images; a name alone is `{name: NAME}`")
    seed: int = Field(
        0, ge=0, lt=2**31, description="Of all that is drawn: first weights, order of the images, distortions"
    )
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec, description="What it occupies; not in the digest")
    run: RunSpec = Field(default_factory=RunSpec, description="How it is run; not in the digest")

    def resolved(self) -> dict[str, Any]:
        """The whole spec with every default written out, ready for JSON."""
        return self.model_dump(mode="json", by_alias=True)

    @field_validator("data", mode="before")
    @classmethod
    def _data_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def goes_on(self) -> bool:
        """Whether it writes checkpoints, from which it goes on after a pause, a retry or a lost node; else it starts
        over, having nothing that is worth keeping."""
        return True

    @property
    def backbone_from_elsewhere(self) -> BackboneFrom | None:
        """Where it takes its backbone from; None: it begins with one of its own."""
        return None

    @property
    def backbone_made(self) -> BackboneMade | None:
        """The backbone that it publishes for other jobs; None: it makes none."""
        return None

    @property
    def in_words(self) -> str | None:
        """What it does, for a column of a table; None: more is known of it where its protocol is told."""
        return None


class KindSpec(JobSpec, ABC):
    """Base of the specs of kinds; each has `kind`, a Literal with a default."""

    run_by: ClassVar[str]
    """MODULE:FUNCTION of the trainer that runs it: (spec, Context) -> Outcome."""
    makes_backbone: ClassVar[bool] = False
    """Whether `backbone_made` is one."""
    takes_backbone: ClassVar[bool] = False
    """Whether `backbone_from_elsewhere` may be one."""
    learns_from: ClassVar[tuple[Annotations, ...]] = ()
    """What has to be known of each image, one of these; empty: nothing, it learns from images alone."""
    example: ClassVar[Example]
    image_size_field: ClassVar[str] = "images.size"
    """Where a spec says `image_size`, where it has one."""
    memory_formula: ClassVar[str]
    """How `memory` counts, in words: what holds for every job of the kind."""

    if TYPE_CHECKING:

        @property
        def kind(self) -> str:
            """Its name: the field that each has."""

    def rules(self) -> list[Rule]:
        """What is refused of fields together. Each asks by itself for the fields that it needs, and is judged also
        where others could not be read."""
        return []

    @model_validator(mode="after")
    def _by_the_rules(self, info: ValidationInfo) -> KindSpec:
        if not (info.context or {}).get(UNJUDGED):
            refuse(refused_by(self.rules()))
        return self

    @property
    def memory_words(self) -> str:
        """How `memory` counts this job, in words."""
        return self.memory_formula

    @property
    def trains_network(self) -> bool:
        """Whether it trains a network on whole batches of images, and drops what is left of an epoch; else it computes
        frozen features once, and what it makes of them starts over after a pause."""
        return True

    @property
    def goes_on(self) -> bool:
        """What trains no network has no checkpoints."""
        return self.trains_network

    @property
    def products(self) -> Precision:
        """The precision of networks' products. Frozen features, and what is made of them, are always exact."""
        return "fp32"

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the images that it judges a feature vector of each of; None: it judges none."""
        return None

    @property
    def leaves_image_size_open(self) -> bool:
        """Whether `image_size` is the usual one because the spec names none."""
        return False

    def at_image_size(self, size: int) -> Self:
        """The spec with `image_size` written out, where it has one."""
        return self

    def as_written_out(self) -> KindSpec:
        """The spec without what is only another way to write the same science; for the digest."""
        return self

    @abstractmethod
    def planned_steps(self, images: int | None, classes: int | None) -> tuple[int | None, int | None]:
        """Optimiser steps of an epoch and of the whole job, of a training split of `images` images in as many classes;
        None where there are none, or where that number is not known yet."""

    @abstractmethod
    def put_on_top(self, features: int, classes: int | None) -> OnTop:
        """Parameters of what it puts on a backbone of so many features."""

    @abstractmethod
    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        """What it needs on each slot, with a backbone of these sizes and a training split of `images` images in as many
        classes, None where they are not known."""

    @property
    @abstractmethod
    def splits(self) -> Sequence[SplitUse]:
        """The splits of its data set that it reads."""

    @property
    def reads_folder_whole(self) -> bool:
        """Whether it reads all images below a split's folder, which nobody counts in a tree of class folders."""
        return False

    def faults_of_annotations(self, entry: DataSetEntry) -> list[Fault]:
        """What it asks of the labels beside `learns_from`, and the data set does not have."""
        return []

    def faults_of_size(self, images: int, classes: int | None, counted: str) -> list[Fault]:
        """What a training split of `images` images in as many classes (None: not known) is too small for; `counted`
        says of what they are."""
        return []

    def faults_of_source(self, network: str) -> list[Fault]:
        """Why it cannot take the backbone of a job that makes one of this network."""
        return []
