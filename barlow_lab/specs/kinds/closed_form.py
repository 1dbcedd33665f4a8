"""Evaluation by the closed form: does a linear layer reach the loss's minimum on this backbone without any training?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from barlow_lab.specs.catalogue import backbones, image_size_fault, network_of
from barlow_lab.specs.common import LEAST_SAMPLE, sample_fault, width_fault
from barlow_lab.specs.faults import Fault, SplitUse
from barlow_lab.specs.kinds.base import Example
from barlow_lab.specs.kinds.evaluation import FROZEN_WORDS, BackboneJudged
from barlow_lab.specs.rules import Place, Rule
from barlow_lab.specs.slot_memory import (
    FROZEN,
    VIEW_WORDS,
    BackboneSizes,
    OnTop,
    SlotMemory,
    activation_bytes,
    formula,
    parameter_bytes,
)
from barlow_lab.specs.views import ViewsSpec

NARROWER = "take a narrower backbone, of raw pixels a smaller views.size"
_MATRICES = 8
"""d x d numbers in float64 that are there at once."""


class ClosedFormSpec(BackboneJudged):
    """The linear projector that solves Barlow Twins without normalisation, from the cross-correlation of a frozen
    backbone's features, and the loss that it reaches on other images. No label is looked at.
    """

    headlines: ClassVar[Mapping[str, str]] = {"closed_form_held_out": "solved on held-out images"}
    example: ClassVar[Example] = Example(
        "The projector that solves the loss on an untrained backbone, by its eigendecomposition",
        {
            "kind": "closed_form",
            "name": "untrained-closed-form",
            "data": {"name": "textures"},
            "views": {"preset": "small_images", "size": 32},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
        },
        name_in_experiment="closed-form",
    )
    image_size_field: ClassVar[str] = "views.size"
    memory_formula: ClassVar[str] = formula(
        VIEW_WORDS, FROZEN_WORDS, "features: 8 matrices of feature width^2 x 8, the moments and what is made of them."
    )

    kind: Literal["closed_form"] = Field("closed_form", description="Which kind of job this is")
    views: ViewsSpec = Field(
        default_factory=lambda: ViewsSpec.model_validate({}), description="How the views of an image are drawn"
    )
    distributions: Literal["one", "two"] = Field(
        "one",
        description="`one`: both views of an image are drawn from views.a, as the closed form takes it; `two`: one "
        "from views.a, one from views.b, as pretraining draws them",
    )
    centred: bool = Field(
        True,
        description="Without the features' means, as the objective with normalisation `none` and Pearson's correlation "
        "have it; false: with them, as it is printed, where a constant feature counts as a solution",
    )
    samples: int = Field(
        4096, ge=LEAST_SAMPLE,
        description="Images of data.split that the matrix is of, drawn by the seed; all where there are no more",
    )  # fmt: skip
    held_out: int = Field(
        4096, ge=LEAST_SAMPLE,
        description="Images of test_split that the projector is tried on, drawn by the seed; all where there are no "
        "more",
    )  # fmt: skip
    floor: float = Field(
        1e-3, ge=1e-12, lt=1.0,
        description="Directions whose eigenvalue is below this part of the largest are dropped: whitened, they would "
        "enlarge what the number of images leaves open",
    )  # fmt: skip
    lambda_: float = Field(0.0051, alias="lambda", ge=0.0, description="Weight of the off-diagonal term of the loss")
    batch_size: int = Field(256, ge=1, description="Global batch of the passes")

    @property
    def score_names(self) -> tuple[str, ...]:
        return "held_out", "own", "symmetry_defect", "symmetry_defect_floor"

    @property
    def trains_network(self) -> bool:
        return False

    @property
    def judged_by(self) -> str:
        return "trainer.evaluation.closed_form:run_closed_form"

    @property
    def image_size(self) -> int | None:
        return self.views.size

    @property
    def leaves_image_size_open(self) -> bool:
        return "size" not in self.views.model_fields_set

    def at_image_size(self, size: int) -> Self:
        return self.model_copy(update={"views": self.views.model_copy(update={"size": size})})

    @property
    def image_facts(self) -> dict[str, Any]:
        return {"size": self.views.size}

    @property
    def splits(self) -> Sequence[SplitUse]:
        return tuple(SplitUse(use.pointer, use.split, labelled=False) for use in super().splits)

    def as_written_out(self) -> ClosedFormSpec:
        # A preset is a way to write views.a and views.b; of one distribution the second is not drawn from.
        changes: dict[str, Any] = {"preset": ViewsSpec.model_fields["preset"].default}
        if self.distributions == "one":
            changes["b"] = self.views.a
        return self.model_copy(update={"views": self.views.model_copy(update=changes)})

    def rules(self) -> list[Rule]:
        return [*super().rules(), self._others, self._few, self._width, self._side]

    def _others(self) -> dict[Place, str]:
        if self.test_split != self.data.split:
            return {}
        said = f"images that are held out cannot be those of data.split, {self.data.split!r}; name another split"
        return {("test_split",): said}

    def _few(self) -> dict[Place, str]:
        said = None if self.data.limit is None else sample_fault(self.data.limit)
        return {("data", "limit"): said} if said else {}

    def _width(self) -> dict[Place, str]:
        if not self.backbone_from.pixels or (said := width_fault(3 * self.views.size**2, NARROWER)) is None:
            return {}
        return {("views", "size"): f"raw pixels: {said}"}

    def _side(self) -> dict[Place, str]:
        weights = self.backbone_from.torchvision
        network = network_of(weights) if weights is not None else self.backbone.name if self.backbone else None
        if network is not None and (said := image_size_fault(network, self.views.size)):
            return {("views", "size"): said}
        return {}

    def planned_steps(self, images: int | None, classes: int | None) -> tuple[int | None, int | None]:
        return None, None

    def put_on_top(self, features: int, classes: int | None) -> OnTop:
        return OnTop()

    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        view = sizes.view_bytes(self.views.size**2) * activation_bytes(self.products) / 4
        return SlotMemory(
            weights=sizes.parameters * parameter_bytes(self.products),
            gradients=0,
            optimizer=0,
            activations=round(-(-self.batch_size // self.resources.slots) * view / FROZEN),
            features=_MATRICES * sizes.features**2 * 8,
        )

    def faults_of_size(self, images: int, classes: int | None, counted: str) -> list[Fault]:
        said = sample_fault(images)
        return [] if said is None else [Fault("/data", f"{said} ({counted})")]

    def faults_of_source(self, network: str) -> list[Fault]:
        said = image_size_fault(network, self.views.size) if network in backbones() else None
        return [] if said is None else [Fault("/views/size", said)]
