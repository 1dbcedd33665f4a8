"""Evaluation by nearest neighbours: it trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.catalogue import Annotations
from barlow_lab.specs.faults import Fault
from barlow_lab.specs.kinds.base import Example
from barlow_lab.specs.kinds.evaluation import FROZEN_WORDS, EvaluationSpec
from barlow_lab.specs.slot_memory import VIEW_WORDS, BackboneSizes, SlotMemory, formula


class KnnSpec(EvaluationSpec):
    """Weighted k-nearest-neighbour vote by cosine similarity of frozen features."""

    learns_from: ClassVar[tuple[Annotations, ...]] = ("class",)
    headlines: ClassVar[Mapping[str, str]] = {"knn_top1": "top-1"}
    example: ClassVar[Example] = Example(
        "Nearest neighbours on raw pixels: the floor",
        {
            "kind": "knn",
            "name": "pixels-knn",
            "data": {"name": "textures"},
            "backbone_from": {"pixels": True},
            "images": {"size": 32, "resize": 32},
        },
        name_in_experiment="knn",
    )
    memory_formula: ClassVar[str] = formula(
        VIEW_WORDS, FROZEN_WORDS, "features: training images / slots x feature width x 4."
    )

    kind: Literal["knn"] = Field("knn", description="Which kind of job this is")
    k: int = Field(20, ge=1, description="Neighbours that vote; published rows use 20 and 200")
    temperature: float = Field(
        0.07, gt=0.0, description="A neighbour of similarity s votes with weight exp(s / T); published rows: 0.07, 0.1"
    )

    @property
    def trains_network(self) -> bool:
        return False

    @property
    def judged_by(self) -> str:
        return "trainer.evaluation.knn:run_knn"

    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        kept = 0 if images is None else -(-min(images, self.data.limit or images) // self.resources.slots)
        return self.frozen_memory(sizes, classes, features=kept * sizes.features * 4)

    def faults_of_size(self, images: int, classes: int | None, counted: str) -> list[Fault]:
        said = f"{self.k:,} neighbours of {images:,} images: {counted}; use fewer"
        return [Fault("/k", said)] if self.k > images else []
