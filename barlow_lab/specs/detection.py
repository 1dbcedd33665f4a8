"""Detection and instance segmentation: a C4 detector that starts from the backbone (Zbontar et al. 2021, C.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from barlow_lab.specs.catalogue import detector_fault, network_of
from barlow_lab.specs.classification import EvaluationPrecision
from barlow_lab.specs.common import ranks_fault, refuse
from barlow_lab.specs.evaluation import BackboneJudged
from barlow_lab.specs.protocols import FollowsProtocol, Protocol, ScheduleSpec

Pixels = Annotated[int, Field(ge=8, le=4096)]

_COMMON = {
    "batch_size": 16, "momentum": 0.9, "weight_decay": 1e-4, "warmup_steps": 1000,
    "longest_side": 1333, "test_side": 800, "anchor_sizes": (32, 64, 128, 256, 512), "anchor_ratios": (0.5, 1.0, 2.0),
    "rois_per_image": 512, "proposals_train": 2000, "proposals_test": 1000,
}  # fmt: skip


_CHANGED = (
    "VOC's difficult objects are judged by VOC's own rule, objects without an area count as missed, boxes over the "
    "edge of an image are cut off and a bad mask costs its object alone, not the image"
)

_OVERLAPS = ("ap", "ap50", "ap75")


class DetectionSpec(FollowsProtocol, BackboneJudged):
    """Faster R-CNN or Mask R-CNN with layers 1 to 3 of a ResNet as trunk and layer 4 as head of each region."""

    PROTOCOLS: ClassVar[Mapping[str, Protocol]] = {
        "voc-faster-rcnn-c4": Protocol(
            2,
            "Zbontar et al. 2021, C.2, VOC07+12; what it leaves open is that of MoCo's detectron2 configuration (He et "
            "al. 2019), in whose circulating form for Barlow Twins (solo-learn) the rate is 0.02 and the warm-up 100 "
            "steps",
            {**_COMMON, "masks": False, "steps": 24_000, "learning_rate": 0.1, "warmup_factor": 0.333,
             "schedule": {"shape": "steps", "after": [18 / 24, 22 / 24], "factor": 0.1},
             "train_sides": tuple(range(480, 801, 32))},
            changed=_CHANGED,
        ),
        "coco-mask-rcnn-c4": Protocol(
            2,
            "Zbontar et al. 2021, C.2, COCO 1x: a rate of 0.03, the other values those of detectron2's 1x schedule",
            {**_COMMON, "masks": True, "steps": 90_000, "learning_rate": 0.03, "warmup_factor": 0.001,
             "schedule": {"shape": "steps", "after": [6 / 9, 8 / 9], "factor": 0.1},
             "train_sides": tuple(range(640, 801, 32))},
            changed=_CHANGED,
        ),
    }  # fmt: skip

    kind: Literal["detection"] = "detection"
    protocol: Literal["voc-faster-rcnn-c4", "coco-mask-rcnn-c4"] = "voc-faster-rcnn-c4"
    masks: bool = Field(False, description="Mask R-CNN: a mask for each box, too (instance segmentation)")
    steps: int = Field(24_000, ge=1, le=10_000_000)
    batch_size: int = Field(16, ge=1, description="Global batch, images")
    learning_rate: float = Field(0.1, gt=0.0, description="Peak rate, for this batch_size as it stands")
    schedule: ScheduleSpec = Field(
        default_factory=lambda: ScheduleSpec(shape="steps", after=[18 / 24, 22 / 24], factor=0.1)
    )
    warmup_steps: int = Field(1000, ge=0, description="Linear warm-up from warmup_factor of the rate")
    warmup_factor: float = Field(0.333, gt=0.0, le=1.0)
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(1e-4, ge=0.0)
    train_sides: list[Pixels] = Field(
        default_factory=lambda: list(range(480, 801, 32)), min_length=1, max_length=50,
        description="Short sides in pixels among which each training image draws one",
    )  # fmt: skip
    test_side: Pixels = Field(800, description="Short side of a test image in pixels")
    longest_side: Pixels = Field(1333, description="An image whose long side would exceed this is made smaller")
    anchor_sizes: list[Pixels] = Field(
        default_factory=lambda: [32, 64, 128, 256, 512], min_length=1, max_length=10,
        description="Sides of the square anchors in pixels",
    )  # fmt: skip
    anchor_ratios: list[Annotated[float, Field(gt=0.0)]] = Field(
        default_factory=lambda: [0.5, 1.0, 2.0], min_length=1, max_length=10, description="Height / width of anchors"
    )
    rois_per_image: int = Field(512, ge=1, description="Regions of an image that the head is trained on")
    proposals_train: int = Field(2000, ge=1, description="Proposals an image after suppression, in training")
    proposals_test: int = Field(1000, ge=1, description="Proposals an image after suppression, in the test")
    evaluate_every_steps: int | None = Field(None, ge=1, description="Test also every N steps; left out: at the end")
    precision: EvaluationPrecision = "fp32"

    @property
    def score_names(self) -> tuple[str, ...]:
        kinds = ("box", "mask") if self.masks else ("box",)
        return tuple(f"{kind}_{ap}{recalls}" for kind in kinds for recalls in ("", "_11_point") for ap in _OVERLAPS)

    @model_validator(mode="after")
    def _combinations(self) -> DetectionSpec:
        faults: dict[tuple[str, ...], str] = {}
        if self.backbone_from.pixels:
            faults["backbone_from", "pixels"] = "raw pixels have no layers a detector could start from; use random"
        if said := ranks_fault(self.batch_size, self.resources.slots):
            faults["batch_size",] = said
        if self.backbone is not None and (said := detector_fault(self.backbone.name)):
            faults["backbone", "name"] = said
        weights = self.backbone_from.torchvision
        if weights is not None and (said := detector_fault(network_of(weights))):
            faults["backbone_from", "torchvision"] = said
        if max(self.train_sides) > self.longest_side or self.test_side > self.longest_side:
            faults["longest_side",] = "the long side of an image is never shorter than its short side; raise it"
        if self.warmup_steps >= self.steps:
            faults["warmup_steps",] = (
                f"warmup_steps {self.warmup_steps:,} never end within steps {self.steps:,}; shorten them, 0 for none"
            )
        refuse(faults)
        return self
