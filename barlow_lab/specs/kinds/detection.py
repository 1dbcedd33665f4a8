"""Detection and instance segmentation: a C4 detector that starts from the backbone (Zbontar et al. 2021, C.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.catalogue import Annotations, DataSetEntry, detector_fault, network_of
from barlow_lab.specs.common import Precision, ranks_fault
from barlow_lab.specs.faults import Fault, no_whole_batch
from barlow_lab.specs.kinds.base import Example
from barlow_lab.specs.kinds.evaluation import BackboneJudged, EvaluationPrecision
from barlow_lab.specs.protocols import EvaluationProtocol, FollowsProtocol, ScheduleSpec
from barlow_lab.specs.rules import Place, Rule
from barlow_lab.specs.slot_memory import (
    SGD_WORDS,
    VIEW_WORDS,
    BackboneSizes,
    OnTop,
    SlotMemory,
    activation_bytes,
    formula,
    parameter_bytes,
)

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

_LAYER_4 = 1 / 18
"""Of the activations of a 224 px view, with the ImageNet stem: those of layer 4, which sees 14 x 14 cells there, as
many as a region of a detector has."""
_MASK_WIDTH = 256
"""Channels of a mask head (trainer.models.detectors)."""


class DetectionSpec(FollowsProtocol, BackboneJudged):
    """Faster R-CNN or Mask R-CNN with layers 1 to 3 of a ResNet as trunk and layer 4 as head of each region."""

    learns_from: ClassVar[tuple[Annotations, ...]] = ("boxes",)
    headlines: ClassVar[Mapping[str, str]] = {"detection_box_ap": "box AP", "detection_mask_ap": "mask AP"}
    example: ClassVar[Example] = Example(
        "A detector with masks that starts from an untrained ResNet, on images of a few objects each",
        {
            "kind": "detection",
            "name": "untrained-detector",
            "data": {"name": "scenes"},
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny_resnet", "stem": "small"},
            "protocol": "coco-mask-rcnn-c4",
            # The protocol's schedule is for images of 800 px and eight GPUs.
            "steps": 200,
            "warmup_steps": 20,
            "train_sides": [128],
            "test_side": 128,
            "anchor_sizes": [32, 64],
        },
        name_in_experiment="masks",
    )
    memory_formula: ClassVar[str] = formula(
        "gradients: parameters x b.",
        SGD_WORDS,
        VIEW_WORDS,
        "activations, an estimate: batch_size / slots x (a view's, with largest train_side x longest_side in place of "
        "size^2, + rois_per_image x 1/18 of a 224 px view's, which is about what layer 4 keeps of one region).",
    )
    PROTOCOLS: ClassVar[Mapping[str, EvaluationProtocol]] = {
        "voc-faster-rcnn-c4": EvaluationProtocol(
            2,
            "Zbontar et al. 2021, C.2, VOC07+12; what it leaves open is that of MoCo's detectron2 configuration (He et "
            "al. 2019), in whose circulating form for Barlow Twins (solo-learn) the rate is 0.02 and the warm-up 100 "
            "steps",
            {**_COMMON, "masks": False, "steps": 24_000, "learning_rate": 0.1, "warmup_factor": 0.333,
             "schedule": {"shape": "steps", "after": [18 / 24, 22 / 24], "factor": 0.1},
             "train_sides": tuple(range(480, 801, 32))},
            changed=_CHANGED,
        ),
        "coco-mask-rcnn-c4": EvaluationProtocol(
            2,
            "Zbontar et al. 2021, C.2, COCO 1x: a rate of 0.03, the other values those of detectron2's 1x schedule",
            {**_COMMON, "masks": True, "steps": 90_000, "learning_rate": 0.03, "warmup_factor": 0.001,
             "schedule": {"shape": "steps", "after": [6 / 9, 8 / 9], "factor": 0.1},
             "train_sides": tuple(range(640, 801, 32))},
            changed=_CHANGED,
        ),
    }  # fmt: skip

    kind: Literal["detection"] = Field("detection", description="Which kind of job this is")
    protocol: Literal["voc-faster-rcnn-c4", "coco-mask-rcnn-c4"] = Field(
        "voc-faster-rcnn-c4", description="The values of what is left out, and the name of the scores"
    )
    masks: bool = Field(False, description="Mask R-CNN: a mask for each box, too (instance segmentation)")
    steps: int = Field(24_000, ge=1, le=10_000_000, description="Optimiser steps; left out: the protocol's")
    batch_size: int = Field(16, ge=1, description="Global batch, images")
    learning_rate: float = Field(0.1, gt=0.0, description="Peak rate, for this batch_size as it stands")
    schedule: ScheduleSpec = Field(
        default_factory=lambda: ScheduleSpec(shape="steps", after=[18 / 24, 22 / 24], factor=0.1),
        description="How the rate falls; left out: as the protocol's",
    )
    warmup_steps: int = Field(1000, ge=0, description="Linear warm-up from warmup_factor of the rate")
    warmup_factor: float = Field(0.333, gt=0.0, le=1.0, description="Rate of the first step / peak rate")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Of SGD; the default is detectron2's")
    weight_decay: float = Field(1e-4, ge=0.0, description="Of all parameters; the default is detectron2's")
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
    precision: EvaluationPrecision = Field("fp32", description="Of the network's products. fp64 is for tests")

    @property
    def score_names(self) -> tuple[str, ...]:
        kinds = ("box", "mask") if self.masks else ("box",)
        return tuple(f"{kind}_{ap}{recalls}" for kind in kinds for recalls in ("", "_11_point") for ap in _OVERLAPS)

    def rules(self) -> list[Rule]:
        return [*super().rules(), self._source, self._ranks, self._network, self._sides, self._warmup]

    def _source(self) -> dict[Place, str]:
        faults: dict[Place, str] = {}
        if self.backbone_from.pixels:
            faults["backbone_from", "pixels"] = "raw pixels have no layers a detector could start from; use random"
        weights = self.backbone_from.torchvision
        if weights is not None and (said := detector_fault(network_of(weights))):
            faults["backbone_from", "torchvision"] = said
        return faults

    def _ranks(self) -> dict[Place, str]:
        said = ranks_fault(self.batch_size, self.resources.slots)
        return {("batch_size",): said} if said else {}

    def _network(self) -> dict[Place, str]:
        said = detector_fault(self.backbone.name) if self.backbone is not None else None
        return {("backbone", "name"): said} if said else {}

    def _sides(self) -> dict[Place, str]:
        if max(self.train_sides) <= self.longest_side and self.test_side <= self.longest_side:
            return {}
        return {("longest_side",): "the long side of an image is never shorter than its short side; raise it"}

    def _warmup(self) -> dict[Place, str]:
        if self.warmup_steps < self.steps:
            return {}
        said = f"warmup_steps {self.warmup_steps:,} never end within steps {self.steps:,}; shorten them, 0 for none"
        return {("warmup_steps",): said}

    @property
    def products(self) -> Precision:
        return self.precision

    @property
    def judged_by(self) -> str:
        return "trainer.evaluation.detection.running:run_detection"

    def planned_steps(self, images: int | None, classes: int | None) -> tuple[int | None, int | None]:
        return None if images is None else min(images, self.data.limit or images) // self.batch_size, self.steps

    def put_on_top(self, features: int, classes: int | None) -> OnTop:
        if classes is None:
            return OnTop(head=None)
        # trainer.models.detectors: proposals on the maps of layer 3, half as wide as layer 4 throughout the ResNet
        # family; a batch normalisation after layer 4; classes and boxes of a region; masks.
        narrow, sorts, anchors = features // 2, classes + 1, len(self.anchor_sizes) * len(self.anchor_ratios)
        proposals = 9 * narrow * narrow + narrow + 5 * anchors * (narrow + 1)
        regions = 2 * features + 5 * sorts * (features + 1)
        masks = 4 * features * _MASK_WIDTH + _MASK_WIDTH + sorts * (_MASK_WIDTH + 1) if self.masks else 0
        return OnTop(head=proposals + regions + masks)

    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        trained = (sizes.parameters + self.put_on_top(sizes.features, classes).total) * parameter_bytes(self.precision)
        image = sizes.view_bytes(max(self.train_sides) * self.longest_side)
        image += self.rois_per_image * _LAYER_4 * sizes.bytes_of_224_imagenet
        image *= activation_bytes(self.precision) / 4
        activations = round(-(-self.batch_size // self.resources.slots) * image)
        return SlotMemory(weights=trained, gradients=trained, optimizer=trained, activations=activations)

    def faults_of_annotations(self, entry: DataSetEntry) -> list[Fault]:
        if not self.masks or "masks" in entry.annotations:
            return []
        said = f"{self.data.name} has no masks; leave masks out, or take a data set in COCO's format"
        return [Fault("/masks", said)]

    def faults_of_size(self, images: int, classes: int | None, counted: str) -> list[Fault]:
        return no_whole_batch(self.batch_size, images, counted)

    def faults_of_source(self, network: str) -> list[Fault]:
        said = detector_fault(network)
        return [] if said is None else [Fault("/backbone_from/job", said)]
