"""Prototypical contrastive learning (Li, Zhou, Xiong, Hoi 2021, arXiv 2005.04966)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.objectives.base import ObjectiveBase
from barlow_lab.specs.objectives.temperature import OfCosines

WARMUP_EPOCHS, SHORT_RUN = 20, 200
"""PCL's warm-up, and the epochs of PCL's run, of which it is a tenth."""


class PclSpec(ObjectiveBase):
    """ProtoNCE: InfoNCE with a queue of keys, and the same of prototypes, the centres of clusters of all images.

    Values are those of the reference code (salesforce/PCL) and its README; the paper has temperature 0.1.
    """

    implementation: ClassVar[str] = "trainer.objectives.pcl:Pcl"
    memory_words: ClassVar[str] = (
        "b x ((queue + all clusters) x d + 2 x batch / slots x (queue + the prototypes that are compared))"
    )
    momentum_copy: ClassVar[bool] = True
    holds_all_images: ClassVar[bool] = True
    whole_batches: ClassVar[str | None] = (
        "its loss is no function of the batch's embeddings alone, but of keys from a momentum copy, a queue of former "
        "keys and prototypes, all of which move with each step"
    )

    name: Literal["pcl"] = Field(description="Which objective this is")
    temperature: OfCosines = Field(0.2, description="Of InfoNCE, and the mean of the clusters' concentrations")
    momentum: float = Field(0.999, ge=0.0, lt=1.0, description="Of the network that makes keys and clusters")
    queue: int = Field(16384, ge=1, description="Former keys that are negatives; a multiple of batch_size")
    clusters: list[Annotated[int, Field(ge=2, le=2**20)]] = Field(
        default_factory=lambda: [25000, 50000, 100000],
        min_length=1,
        max_length=8,
        description="Numbers of clusters: one clustering of all images for each of them, before each epoch",
    )
    negatives: int = Field(
        16384, ge=1, description="Prototypes beside its own that an image is told from; all others where fewer are left"
    )
    warmup_epochs: int | None = Field(
        None,
        ge=0,
        description="Epochs of InfoNCE alone; left out: 20, or a tenth of a run shorter than 200",
    )
    smoothing: float = Field(
        10.0, ge=1.0, description="alpha in a cluster's phi, so that it is not overly large where a cluster is small"
    )
    iterations: int = Field(20, ge=1, le=1000, description="Of k-means at most")
    restarts: int = Field(5, ge=1, le=100, description="Of k-means, of which the tightest counts")

    def epochs_without_prototypes(self, epochs: int) -> int:
        """Epochs of the warm-up in a run of `epochs`."""
        if self.warmup_epochs is not None:
            return self.warmup_epochs
        return min(WARMUP_EPOCHS, WARMUP_EPOCHS * epochs // SHORT_RUN)

    def faults(self, *, batch_size: int, width: int) -> dict[str, str]:
        """A queue that whole batches do not fill."""
        if self.queue % batch_size == 0:
            return {}
        down = self.queue // batch_size * batch_size
        return {
            "queue": f"a queue of {self.queue} keys cannot take in whole batches of {batch_size}; "
            f"use {f'{down} or ' if down else ''}{down + batch_size}, or another batch_size"
        }

    def faults_of_run(self, *, batch_size: int, epochs: int, images: int | None) -> dict[str, str]:
        """More keys or clusters than images, and a warm-up without an end."""
        found = {}
        if images is not None and batch_size <= images < self.queue:
            found["queue"] = (
                f"a queue of {self.queue} keys is above the {images} images of the run: an image would be told from "
                f"itself; use at most {images // batch_size * batch_size}, a multiple of batch_size {batch_size}"
            )
        if images is not None and max(self.clusters) > images:
            found["clusters"] = (
                f"{max(self.clusters)} clusters of {images} images would leave some without any; use fewer, rather a "
                "tenth of the images or less"
            )
        if self.warmup_epochs is not None and self.warmup_epochs >= epochs:
            found["warmup_epochs"] = (
                f"a warm-up of {self.warmup_epochs} epochs leaves none of {epochs} with prototypes; shorten it, or "
                "leave it out for a tenth of the run, or have the run (epochs, max_steps) go on for longer"
            )
        return found

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """Queue and prototypes, and of a rank's rows the products with them, once more for the gradient."""
        kept = self.queue + sum(self.clusters)
        compared = self.queue + sum(min(self.negatives + 1, count) for count in self.clusters)
        return kept * features + 2 * (samples // ranks) * compared
