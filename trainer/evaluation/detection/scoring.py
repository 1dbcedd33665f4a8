"""Average precision of detections.

- `ap`, `ap50`, `ap75`: as COCO's. Precision at 101 recalls, 0 to 1, averaged over classes and over overlaps of .50, .55
  to .95, or at .50 or .75 alone; at most 100 detections an image.
- `ap_11_point`, `ap50_11_point`, `ap75_11_point`: the same at the 11 recalls 0, .1 to 1, as VOC07 measured and as the
  VOC row of Zbontar et al. 2021 is told.

Objects that are ignored count neither as found nor as missed. Whether a detection that falls on one is excused is said
by the data set's own rule: by COCO's evaluator (pycocotools, through torchmetrics) where ignored objects are crowds, by
PASCAL VOC's matching (trainer.evaluation.detection.voc_matching) where they are difficult ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from trainer.data.datasets import Annotation
from trainer.evaluation.detection.voc_matching import VocMatching

# Written out: torchmetrics makes its own in float32, where 0.3 lies above 3 of 10.
OVERLAPS = np.linspace(0.5, 0.95, 10).tolist()
COCO_RECALLS = np.linspace(0.0, 1.0, 101).tolist()
VOC_RECALLS = [tenth / 10 for tenth in range(11)]

MOST_DETECTIONS = [1, 10, 100]


def evaluator(*, difficult: bool) -> dict[str, str]:
    """What judges: whose rule of matching, and versions. `difficult`: ignored objects are VOC's difficult ones."""
    if difficult:
        return {"matching": "PASCAL VOC"}
    return {"matching": "COCO", **{name: version(name) for name in ("torchmetrics", "pycocotools")}}


@dataclass(frozen=True, slots=True)
class ImageDetections:
    """What was found in one image and what is there."""

    boxes: Tensor
    """(k, 4) float32 left, top, right, bottom."""
    scores: Tensor
    classes: Tensor
    masks: Tensor | None
    """(k, H, W) uint8."""
    truth: Annotation


def average_precisions(
    judged: Iterable[ImageDetections], *, masks: bool, difficult: bool, tick: Callable[[], None]
) -> dict[str, float]:
    """Scores in percent: `box_ap`, `box_ap50`, `box_ap75`, `box_ap_11_point`, `box_ap50_11_point`, `box_ap75_11_point`,
    with `masks` the same of masks, `mask_...`. The order of the images decides between detections of equal score.

    Some image has an object that is not ignored. `difficult`: ignored objects are VOC's difficult ones, which come
    without masks. `tick` is called after each image and each evaluation.
    """
    return _by_voc(judged, tick) if difficult else _by_coco(judged, masks, tick)


def _by_voc(judged: Iterable[ImageDetections], tick: Callable[[], None]) -> dict[str, float]:
    matching = VocMatching(OVERLAPS)
    for one in judged:
        found = one.boxes.numpy(), one.scores.numpy(), one.classes.numpy()
        matching.take(*found, one.truth.boxes, one.truth.classes, one.truth.ignored)
        tick()
    scores: dict[str, float] = {}
    for recalls, suffix in ((COCO_RECALLS, ""), (VOC_RECALLS, "_11_point")):
        found_at = 100 * matching.average_precisions(recalls)
        assert not np.isnan(found_at).any(), "there is something to find"
        scores |= {f"box_ap{suffix}": float(found_at.mean())}
        scores |= {f"box_ap{name}{suffix}": float(found_at[place]) for name, place in (("50", 0), ("75", 5))}
        tick()
    return scores


def _by_coco(judged: Iterable[ImageDetections], masks: bool, tick: Callable[[], None]) -> dict[str, float]:
    names: dict[Literal["bbox", "segm"], str] = {"bbox": "box"}
    if masks:
        names["segm"] = "mask"
    metric = MeanAveragePrecision(
        box_format="xyxy",
        iou_type=tuple(names),
        iou_thresholds=OVERLAPS,
        rec_thresholds=COCO_RECALLS,
        max_detection_thresholds=MOST_DETECTIONS,
        backend="pycocotools",
        sync_on_compute=False,  # every rank has all images
        compute_with_cache=False,
    )
    for one in judged:
        metric.update([_found(one, masks)], [_there(one.truth, masks)])
        tick()
    coco = metric.compute()
    tick()
    metric.rec_thresholds = VOC_RECALLS
    voc = metric.compute()
    tick()
    scores = {}
    for kind, name in names.items():
        prefix = f"{kind}_" if len(names) > 1 else ""
        for found, measured, suffix in (
            (coco, "map", "ap"),
            (coco, "map_50", "ap50"),
            (coco, "map_75", "ap75"),
            (voc, "map", "ap_11_point"),
            (voc, "map_50", "ap50_11_point"),
            (voc, "map_75", "ap75_11_point"),
        ):
            value = float(found[f"{prefix}{measured}"])
            assert value >= 0, "the evaluator says -1 where there is nothing to find"
            scores[f"{name}_{suffix}"] = 100 * value
    return scores


def _found(one: ImageDetections, masks: bool) -> dict[str, Tensor]:
    found = {"boxes": one.boxes, "scores": one.scores, "labels": one.classes}
    if masks:
        assert one.masks is not None
        found["masks"] = one.masks
    return found


def _there(truth: Annotation, masks: bool) -> dict[str, Tensor]:
    there = {
        "boxes": torch.from_numpy(np.ascontiguousarray(truth.boxes)),
        "labels": torch.from_numpy(truth.classes),
        "iscrowd": torch.from_numpy(truth.ignored.astype(np.int64)),
    }
    if masks:
        assert truth.masks is not None
        there["masks"] = torch.from_numpy(truth.masks.astype(np.uint8))
    return there
