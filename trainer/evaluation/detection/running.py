"""Detection and instance segmentation from a spec to its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from barlow_lab.specs import DetectionSpec
from barlow_lab.specs.common import ranks_fault
from trainer.data.datasets import AnnotatedDataSet, BoxCounts, MaskFaults
from trainer.data.errors import DataError
from trainer.data.loading.detection import HOW_WITHOUT_AREA, DetectionBatches
from trainer.data.object_numbers import many_without, more_than_found
from trainer.data.registry import open_annotated
from trainer.evaluation.backbone import open_backbone
from trainer.evaluation.detection.scoring import evaluator
from trainer.evaluation.detection.testing import DetectorTest, in_words
from trainer.evaluation.detection.training import DetectionFit
from trainer.evaluation.splits import Splits, open_splits
from trainer.failures import BadSpec
from trainer.models.detectors.c4 import C4Detector, DetectorForm
from trainer.models.exported import backbone_digest
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.runtime.precision import PRODUCT_DTYPES
from trainer.training.loop import train


def run_detection(spec: DetectionSpec, context: Context) -> dict[str, Any] | None:
    """Train a detector from the backbone and test it, from the newest checkpoint if there is one; the result on every
    rank, or None if a stop was asked for. Metrics `detection_loss` with its parts, `detection_grad_norm` and
    `detection_learning_rate` by step, `detection_box_ap` and the other average precisions (in percent) at every test.

    Raises:
        BadSpec: the backbone is no ResNet, or the data set has no masks to learn.
        DataError: the data cannot be used.
        Diverged: the rate is too high.
    """
    opened = open_backbone(spec, context)
    splits = open_splits(spec, context, open_annotated, pretrained_on=opened.pretrained_on)
    if spec.masks and not (splits.train.has_masks and splits.test.has_masks):
        raise BadSpec(f"data set {spec.data.name!r} has boxes and no masks; set masks: false, or use another data set")
    faults: dict[str, MaskFaults] = {}
    if spec.masks:
        splits = _with_masks(splits, faults, context)
    _tell_of_numbers(splits, context)
    batches = _open_batches(spec, splits.train, context)
    test = DetectorTest(spec, splits.test, context)
    detector = build_detector(spec, opened.trainable_copy(), classes=splits.classes)
    begun_with = backbone_digest(detector.drawn_state())
    fit = DetectionFit(spec, detector, batches, test, opened, context)
    if not train(fit):
        return None
    return {
        **fit.scores.result(),
        "data": _data_facts(splits, batches, fit, test, faults),
        "backbone": {"source": opened.source, "digest": opened.digest, "features": detector.width},
        "detector": {
            "anchors_per_cell": len(spec.anchor_sizes) * len(spec.anchor_ratios),
            "stride": detector.stride,
            "trunk_width": detector.trunk_width,
            "parameters": sum(parameter.numel() for parameter in detector.parameters()),
            "drawn_digest": begun_with,
        },
        "evaluator": {
            **evaluator(difficult=splits.test.ignored_are_difficult),
            "otherwise": in_words(test.counts, splits.test) + _left_out(faults.get("test", MaskFaults())),
        },
        "images": {"test_side": spec.test_side, "longest_side": spec.longest_side, "train_sides": spec.train_sides},
    }


def build_detector(spec: DetectionSpec, backbone: torch.nn.Module, *, classes: int) -> C4Detector:
    """The detector of the spec around a backbone that it takes over, in the backbone's dtype.

    Raises:
        BadSpec: the backbone is no ResNet.
    """
    form = DetectorForm(
        classes=classes,
        masks=spec.masks,
        anchor_sizes=tuple(spec.anchor_sizes),
        anchor_ratios=tuple(spec.anchor_ratios),
        rois_per_image=spec.rois_per_image,
        proposals_train=spec.proposals_train,
        proposals_test=spec.proposals_test,
    )
    try:
        return C4Detector(backbone, form, seed=spec.seed, products=PRODUCT_DTYPES.get(spec.precision))
    except ValueError as error:
        raise BadSpec(
            f"a C4 detector takes a backbone apart into the stem and the four layers of a ResNet, and this one cannot "
            f"be ({error}); use one of torchvision's ResNets (resnet18 to resnet152, resnext..., wide_resnet...) or "
            "tiny_resnet"
        ) from error


def _with_masks(
    splits: Splits[AnnotatedDataSet], faults: dict[str, MaskFaults], context: Context
) -> Splits[AnnotatedDataSet]:
    """Both splits with the masks of their objects; `faults` takes in what is wrong with them, which a warning says.

    Raises:
        DataError: no object of a split has a mask that can be read.
    """
    phase = "checking masks"
    context.progress(phase)
    found: dict[str, AnnotatedDataSet] = {}
    for part, split, whole in (
        ("train", splits.spec.data.split, splits.train), ("test", splits.spec.test_split, splits.test)
    ):  # fmt: skip
        found[part], faults[part] = whole.with_masks(partial(context.working, phase))
        if said := _left_out(faults[part]) + _empty(faults[part]):
            context.warn(f"split {split!r}: {'; '.join(said)}. The first: {faults[part].first}")
        if faults[part].objects and not (found[part].presence() == 1).any():
            raise DataError(
                f"no object of split {split!r} has a mask that can be read, the first: {faults[part].first}; "
                "set masks: false for boxes alone"
            )
    return replace(splits, train=found["train"], test=found["test"])


def _tell_of_numbers(splits: Splits[AnnotatedDataSet], context: Context) -> None:
    train, test = splits.spec.data.split, splits.spec.test_split
    found = [(test, more_than_found(splits.test)), (train, many_without(splits.train))]
    if test != train:
        found.append((test, many_without(splits.test)))
    for split, said in found:
        if said:
            context.warn(f"split {split!r}: {said}")


def _left_out(faults: MaskFaults) -> list[str]:
    said = []
    if faults.objects:
        said.append(f"objects without a mask that can be read are left out, with their boxes ({faults.objects:,})")
    if faults.polygons:
        said.append(f"what is no polygon is left out of the masks of other objects ({faults.polygons:,})")
    return said


def _empty(faults: MaskFaults) -> list[str]:
    said = (
        f"objects whose mask covers no pixel, or the first one alone, are kept, and nothing fits it ({faults.empty:,})"
    )
    return [said] if faults.empty else []


def _open_batches(spec: DetectionSpec, dataset: AnnotatedDataSet, context: Context) -> DetectionBatches:
    if fault := ranks_fault(spec.batch_size, context.world_size):
        raise BadSpec(fault)
    batches = DetectionBatches(
        dataset,
        sides=tuple(spec.train_sides),
        longest=spec.longest_side,
        batch_size=spec.batch_size,
        seed=spec.seed,
        rank=context.rank,
        world_size=context.world_size,
        threads=context.threads,
        tick=partial(context.working, "loading images", quiet_seconds=LOADING_SECONDS),
    )
    if said := _of_boxes(batches.boxes):
        context.warn(f"split {spec.data.split!r}: {'; '.join(said)}")
    return batches


def _of_boxes(boxes: BoxCounts) -> list[str]:
    """What is wrong with the boxes that are trained on."""
    said = []
    if cut := int(boxes.cut.sum()):
        said.append(f"boxes that reach over the edge of their image are cut off there ({cut:,})")
    if without := int(boxes.without_area.sum()):
        said.append(
            f"objects whose box has no area teach nothing, and images with such alone are left out ({without:,} of "
            f"{int(boxes.objects.sum()):,}). {HOW_WITHOUT_AREA}"
        )
    return said


def _data_facts(
    splits: Splits[AnnotatedDataSet],
    batches: DetectionBatches,
    fit: DetectionFit,
    test: DetectorTest,
    faults: Mapping[str, MaskFaults],
) -> dict[str, Any]:
    """`data` of the result: the numbers are those of images that were learned from and judged."""
    train_unreadable, test_unreadable = len(fit.skipped.names), len(test.unreadable)
    facts = splits.facts(
        train_images=len(batches.with_objects) - train_unreadable,
        test_images=len(splits.test) - test_unreadable,
        train_unreadable=train_unreadable,
        test_unreadable=test_unreadable,
    )
    without = len(splits.train) - len(batches.with_objects)
    masks = {
        f"{part}_{what}": count
        for part, of in faults.items()
        for what, count in (
            ("objects_left_out", of.objects),
            ("polygons_left_out", of.polygons),
            ("masks_empty", of.empty),
        )
    }
    return {
        **facts["data"],
        "train_images_without_objects": without,
        "train_objects_without_area": int(batches.boxes.without_area.sum()),
        "train_objects_ignored": int(batches.boxes.ignored.sum()),
        "train_boxes_cut": int(batches.boxes.cut.sum()),
        "test_images_without_objects": test.images_without_objects,
        "test_objects": test.counts["objects"],
        "test_objects_ignored": test.counts["ignored"],
        "test_objects_without_area": test.counts["without_area"],
        "test_boxes_cut": test.counts["cut"],
        **masks,
    }
