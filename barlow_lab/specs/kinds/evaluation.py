"""What every evaluation shares, and what those share that judge one feature vector an image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from barlow_lab.specs.catalogue import image_size_fault, network_of
from barlow_lab.specs.common import BackboneFrom, BackboneSpec, Name, SpecModel, ranks_fault, refuse
from barlow_lab.specs.faults import Fault, SplitUse
from barlow_lab.specs.kinds.base import KindSpec
from barlow_lab.specs.rules import Place, Rule
from barlow_lab.specs.slot_memory import FROZEN, BackboneSizes, OnTop, SlotMemory, activation_bytes, parameter_bytes

EvaluationPrecision = Literal["fp32", "bf16", "fp64"]
"""fp64 is for tests."""

FROZEN_WORDS = "activations: nothing is kept for backward; batch_size / slots x one twentieth of a view's."


class EvaluationImages(SpecModel):
    """How an image is brought to the backbone: resized, centre crop of `size`, normalised."""

    size: int = Field(
        224, ge=8, le=1024,
        description="Side of the centre crop in pixels; left out, with resize, it is settled at submit: that of the "
        "source job's views, else of the data set's images where they all have one and it is smaller, else 224",
    )  # fmt: skip
    resize: int | None = Field(None, ge=8, le=2048, description="Pixels before the crop; left out: size * 8 / 7")
    resize_to: Literal["short_side", "square"] = Field(
        "short_side",
        description="What `resize` is: the length of the short side, as in the code in circulation, or the sides of "
        "a square, whatever the image's proportions, as Zbontar et al. 2021, B.1 says",
    )

    @field_validator("resize", mode="after")
    @classmethod
    def _left_out(cls, resize: int | None, info: ValidationInfo) -> int | None:
        # Written out or not, it is the same science, and has the same digest.
        return None if resize == _resized(info.data.get("size", 0)) else resize

    @property
    def resized(self) -> int:
        """Pixels of the short side, or of the square, before the crop (256 of 256 -> 224, Zbontar et al. 2021, B.1)."""
        return _resized(self.size) if self.resize is None else self.resize

    @model_validator(mode="after")
    def _crop_fits(self) -> EvaluationImages:
        if self.resize is not None and self.resize < self.size:
            refuse({("resize",): f"resize {self.resize} is below size {self.size}: the crop would not fit; raise it"})
        return self


def _resized(size: int) -> int:
    return round(size * 8 / 7)


class BackboneJudged(KindSpec):
    """Fields that every evaluation shares. `data.split` is the labelled training split."""

    run_by: ClassVar[str] = "trainer.evaluation.running:evaluate"
    takes_backbone: ClassVar[bool] = True

    backbone_from: BackboneFrom = Field(description="Whose backbone is judged: exactly one source")
    backbone: BackboneSpec | None = Field(
        None, description="Architecture; with backbone_from.random, and with a backbone_from.file of bare weights"
    )
    test_split: Name = Field("test", description="Split the result is measured on")

    @property
    def score_names(self) -> tuple[str, ...]:
        """Scores that the result may have; a data set of few classes has less of them."""
        return "top1", "top5"

    @property
    @abstractmethod
    def judged_by(self) -> str:
        """MODULE:FUNCTION of the trainer that judges: (spec, Context) -> the result without its protocol, or None."""

    @property
    def is_known(self) -> bool:
        """Whether this version knows its protocol: a stored spec may name a former one."""
        return True

    @property
    def protocol_name(self) -> str:
        """Kind, protocol and version, as a result quotes it; of a kind with one protocol the kind's name is enough."""
        return f"{self.kind}/1"

    @property
    def protocol_version(self) -> int:
        """The version of the protocol here; it rises when the same fields come to give another result."""
        return 1

    def refused_version(self, begun: int) -> str | None:
        """Why a run that began under version `begun` of the protocol cannot go on, with the remedy; None: it can."""
        return None

    def departures(self) -> dict[str, dict[str, Any]]:
        """Fields that are not the protocol's: {field: {"protocol": its value, "here": the value}}."""
        return {}

    @property
    def image_facts(self) -> dict[str, Any]:
        """What a result says of how an image becomes a feature vector; empty where none does."""
        return {}

    @property
    def labels_in_words(self) -> str | None:
        """Which of the labels it learns from; None: all of them."""
        return None

    @property
    def labels_percent(self) -> float:
        """How many of the labels it learns from, which orders evaluations of a kind; 0 where it does not say."""
        return 0.0

    @property
    def backbone_from_elsewhere(self) -> BackboneFrom | None:
        return self.backbone_from

    @property
    def splits(self) -> Sequence[SplitUse]:
        return SplitUse("/data/split", self.data.split), SplitUse("/test_split", self.test_split)

    def rules(self) -> list[Rule]:
        return [self._architecture, self._published, self._no_pretraining]

    def _architecture(self) -> dict[Place, str]:
        source = self.backbone_from
        if source.random is not None and self.backbone is None:
            return {("backbone",): "backbone_from.random needs the architecture: add backbone: {name: ...}"}
        if source.random is None and source.file is None and self.backbone is not None:
            said = "backbone goes with backbone_from.random and backbone_from.file; the others bring their own; "
            return {("backbone",): said + "leave it out"}
        return {}

    def _published(self) -> dict[Place, str]:
        known = self.score_names
        said = f"{self.kind} has no score of this name; use {', '.join(known)}"
        told = self.run.published.scores if self.run.published is not None else {}
        return {("run", "published", "scores", name): said for name in told if name not in known}

    def _no_pretraining(self) -> dict[Place, str]:
        faults: dict[Place, str] = {}
        if self.run.stop_on:
            faults["run", "stop_on"] = "the embeddings of a pretraining collapse, an evaluation has none; leave it out"
        if self.run.record.probes is not None:
            faults["run", "record", "probes"] = "probes look at a pretraining while it trains; leave them out"
        if self.run.record.population is not None:
            said = "it is of the embeddings of a pretraining, an evaluation has none; leave it out"
            faults["run", "record", "population"] = said
        if self.run.checkpoint.best_by is not None:
            faults["run", "checkpoint", "best_by"] = (
                "it chooses among the checkpoints of a pretraining; an evaluation tells its best score by itself"
            )
        return faults


class EvaluationSpec(BackboneJudged):
    """Fields of the evaluations that judge one feature vector an image."""

    images: EvaluationImages = Field(
        default_factory=EvaluationImages, description="How an image is brought to the backbone"
    )
    batch_size: int = Field(256, ge=1, description="Global batch: of the feature pass, and of the training if any")

    @property
    def image_size(self) -> int | None:
        return self.images.size

    @property
    def leaves_image_size_open(self) -> bool:
        """With `resize` alone it does not: pixels before the crop are meant for the usual crop."""
        return not self.images.model_fields_set & {"size", "resize"}

    def at_image_size(self, size: int) -> Self:
        return self.model_copy(update={"images": self.images.model_copy(update={"size": size})})

    @property
    def image_facts(self) -> dict[str, Any]:
        return {"size": self.images.size, "resized": self.images.resized, "resize_to": self.images.resize_to}

    def rules(self) -> list[Rule]:
        return [*super().rules(), self._image_size]

    def _image_size(self) -> dict[Place, str]:
        weights = self.backbone_from.torchvision
        network = network_of(weights) if weights is not None else self.backbone.name if self.backbone else None
        if network is not None and (said := image_size_fault(network, self.images.size)):
            return {("images", "size"): said}
        return {}

    def faults_of_source(self, network: str) -> list[Fault]:
        said = image_size_fault(network, self.images.size)
        return [] if said is None else [Fault("/images/size", said)]

    def planned_steps(self, images: int | None, classes: int | None) -> tuple[int | None, int | None]:
        return None, None

    def put_on_top(self, features: int, classes: int | None) -> OnTop:
        return OnTop()

    def frozen_memory(self, sizes: BackboneSizes, classes: int | None, *, features: int) -> SlotMemory:
        """The memory of training what is put on a frozen backbone, with so many bytes of features kept."""
        on_top, parameter = self.put_on_top(sizes.features, classes).total, parameter_bytes(self.products)
        view = sizes.view_bytes(self.images.size**2) * activation_bytes(self.products) / 4
        return SlotMemory(
            weights=(sizes.parameters + on_top) * parameter,
            gradients=on_top * parameter,
            optimizer=on_top * parameter,
            activations=round(-(-self.batch_size // self.resources.slots) * view / FROZEN),
            features=features,
        )

    def classifier(self, features: int, classes: int | None) -> OnTop:
        """A linear classifier with a bias on so many features."""
        return OnTop(head=None if classes is None else features * classes + classes)

    def batch_fault(self) -> str | None:
        """What is wrong with the batch of a training on images, as far as it is known before the data are."""
        batch, limit = self.batch_size, self.data.limit
        if limit is not None and batch > limit:
            return (
                f"batch_size {batch} is above data.limit {limit}: the last partial batch is dropped, so there would be "
                f"no step at all; use at most {limit}"
            )
        return ranks_fault(batch, self.resources.slots)
