"""Evaluation by support vector machines on frozen features (Zbontar et al. 2021, appendix C.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.catalogue import Annotations
from barlow_lab.specs.kinds.base import Example
from barlow_lab.specs.kinds.evaluation import FROZEN_WORDS, EvaluationSpec
from barlow_lab.specs.protocols import EvaluationProtocol, FollowsProtocol
from barlow_lab.specs.slot_memory import VIEW_WORDS, BackboneSizes, SlotMemory, formula

_VISSL_COSTS = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)


class SvmSpec(FollowsProtocol, EvaluationSpec):
    """One-vs-rest support vector machines on frozen features; the score is the mean average precision of the classes.

    On a data set of single labels every image is a negative of all classes but its own.
    """

    learns_from: ClassVar[tuple[Annotations, ...]] = ("class", "multi_label")
    headlines: ClassVar[Mapping[str, str]] = {"svm_map_11_point": "mAP (11-point)"}
    example: ClassVar[Example] = Example(
        "Support vector machines, one a class, on the frozen features of an untrained backbone",
        {
            "kind": "svm",
            "name": "untrained-svm",
            "data": {"name": "textures"},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
            "images": {"size": 32, "resize": 32},
        },
        name_in_experiment="svm",
    )
    memory_formula: ClassVar[str] = formula(VIEW_WORDS, FROZEN_WORDS, "features: training images x feature width x 8.")
    PROTOCOLS: ClassVar[Mapping[str, EvaluationProtocol]] = {
        "voc07": EvaluationProtocol(
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

    kind: Literal["svm"] = Field("svm", description="Which kind of job this is")
    protocol: Literal["voc07"] = Field("voc07", description="The values of what is left out, and the name of the score")
    costs: list[Annotated[float, Field(gt=0.0)]] = Field(
        default_factory=lambda: list(_VISSL_COSTS), min_length=1, max_length=50,
        description="Among which each class's C is chosen",
    )  # fmt: skip
    folds: int = Field(3, ge=2, le=20, description="Of the cross-validation that chooses C")

    @property
    def score_names(self) -> tuple[str, ...]:
        return "map_11_point", "map_all_points"

    @property
    def trains_network(self) -> bool:
        return False

    @property
    def judged_by(self) -> str:
        return "trainer.evaluation.svm:run_svm"

    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        kept = 0 if images is None else min(images, self.data.limit or images)
        return self.frozen_memory(sizes, classes, features=kept * sizes.features * 8)
