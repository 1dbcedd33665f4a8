"""What every evaluation spec shares, and the evaluations that train nothing: nearest neighbours."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from barlow_lab.specs.catalogue import image_size_fault, network_of
from barlow_lab.specs.common import BackboneFrom, BackboneSpec, JobSpec, Name, SpecModel, refuse


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


class BackboneJudged(JobSpec):
    """Fields that every evaluation shares. `data.split` is the labelled training split."""

    backbone_from: BackboneFrom
    backbone: BackboneSpec | None = Field(
        None, description="Architecture; with backbone_from.random, and with a backbone_from.file of bare weights"
    )
    test_split: Name = Field("test", description="Split the result is measured on")

    @property
    def score_names(self) -> tuple[str, ...]:
        """Scores that the result may have; a data set of few classes has less of them."""
        return "top1", "top5"

    @model_validator(mode="after")
    def _architecture(self) -> BackboneJudged:
        source = self.backbone_from
        if source.random is not None and self.backbone is None:
            refuse({("backbone",): "backbone_from.random needs the architecture: add backbone: {name: ...}"})
        if source.random is None and source.file is None and self.backbone is not None:
            said = "backbone goes with backbone_from.random and backbone_from.file; the others bring their own; "
            refuse({("backbone",): said + "leave it out"})
        return self

    @model_validator(mode="after")
    def _published(self) -> BackboneJudged:
        known = self.score_names
        said = f"{self.kind} has no score of this name; use {', '.join(known)}"  # type: ignore[attr-defined]
        told = self.run.published.scores if self.run.published is not None else {}
        refuse({("run", "published", "scores", name): said for name in told if name not in known})
        return self

    @model_validator(mode="after")
    def _no_pretraining(self) -> BackboneJudged:
        faults: dict[tuple[str, ...], str] = {}
        if self.run.record.probes is not None:
            faults["run", "record", "probes"] = "probes look at a pretraining while it trains; leave them out"
        if self.run.checkpoint.best_by is not None:
            faults["run", "checkpoint", "best_by"] = (
                "it chooses among the checkpoints of a pretraining; an evaluation tells its best score by itself"
            )
        refuse(faults)
        return self


class EvaluationSpec(BackboneJudged):
    """Fields of the evaluations that judge one feature vector an image."""

    images: EvaluationImages = Field(default_factory=EvaluationImages)
    batch_size: int = Field(256, ge=1, description="Global batch: of the feature pass, and of the training if any")

    @model_validator(mode="after")
    def _image_size(self) -> EvaluationSpec:
        weights = self.backbone_from.torchvision
        network = network_of(weights) if weights is not None else self.backbone.name if self.backbone else None
        if network is not None and (said := image_size_fault(network, self.images.size)):
            refuse({("images", "size"): said})
        return self


class KnnSpec(EvaluationSpec):
    """Weighted k-nearest-neighbour vote by cosine similarity of frozen features."""

    kind: Literal["knn"] = "knn"
    k: int = Field(20, ge=1, description="Neighbours that vote; published rows use 20 and 200")
    temperature: float = Field(
        0.07, gt=0.0, description="A neighbour of similarity s votes with weight exp(s / T); published rows: 0.07, 0.1"
    )
