"""Evaluation specs: a frozen backbone judged on labelled images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trainer.specs.catalogue import image_size_fault
from trainer.specs.common import BackboneFrom, BackboneSpec, JobSpec, Name, SpecModel, refuse


class EvaluationImages(SpecModel):
    """How an image is brought to the backbone: short side to `resize`, centre crop of `size`, normalised."""

    size: int = Field(224, ge=8, le=1024, description="Side of the centre crop in pixels")
    resize: int | None = Field(None, ge=8, le=2048, description="Short side before the crop; left out: size * 8 / 7")

    @property
    def short_side(self) -> int:
        """Short side in pixels before the crop (the 256 of 256 -> 224, document 000, B.1)."""
        return round(self.size * 8 / 7) if self.resize is None else self.resize

    @model_validator(mode="after")
    def _crop_fits(self) -> EvaluationImages:
        if self.resize is not None and self.resize < self.size:
            refuse({("resize",): f"resize {self.resize} is below size {self.size}: the crop would not fit; raise it"})
        return self


class EvaluationSpec(JobSpec):
    """Fields that every evaluation shares. `data.split` is the labelled training split."""

    backbone_from: BackboneFrom
    backbone: BackboneSpec | None = Field(None, description="Architecture; only with backbone_from.random")
    test_split: Name = Field("test", description="Split the result is measured on")
    images: EvaluationImages = Field(default_factory=EvaluationImages)
    batch_size: int = Field(256, ge=1, description="Global batch of the feature pass")

    @model_validator(mode="after")
    def _architecture(self) -> EvaluationSpec:
        if self.backbone_from.random is not None and self.backbone is None:
            refuse({("backbone",): "backbone_from.random needs the architecture: add backbone: {name: ...}"})
        if self.backbone_from.random is None and self.backbone is not None:
            refuse({("backbone",): "backbone goes with backbone_from.random only; a job brings its own; leave it out"})
        if self.backbone is not None and (said := image_size_fault(self.backbone.name, self.images.size)):
            refuse({("images", "size"): said})
        return self


class KnnSpec(EvaluationSpec):
    """Weighted k-nearest-neighbour vote by cosine similarity of frozen features."""

    kind: Literal["knn"] = "knn"
    k: int = Field(20, ge=1, description="Neighbours that vote")
    temperature: float = Field(0.07, gt=0.0, description="A neighbour of similarity s votes with weight exp(s / T)")


class LinearSpec(EvaluationSpec):
    """A linear classifier on frozen features: the short protocol `cached-features`.

    Features of the un-augmented images are computed once; the classifier is trained on them by SGD with momentum
    and a cosine rate. Cheaper than document 000, B.1, which augments: its results are named apart.
    """

    kind: Literal["linear"] = "linear"
    protocol: Literal["cached-features"] = "cached-features"
    epochs: int = Field(100, ge=1, le=10_000)
    learning_rate: float = Field(0.3, gt=0.0, description="Peak rate for a head batch of 256 (document 000, B.1)")
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(1e-6, ge=0.0)
    head_batch_size: int = Field(256, ge=1, description="Batch of the classifier's own training")
