"""The head of a C4 detector: every region goes through layer 4 once, and box and mask are read from what comes out.

torchvision's RoIHeads pools the regions of the masks a second time and would run layer 4 on them again; then its batch
normalisation would also learn from regions with objects alone. Here, as in detectron2's Res5ROIHeads, the masks are
read from the maps that the boxes were read from. Matching, box coding and suppression are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference
from torchvision.ops import RoIAlign, roi_align

from trainer.models.detectors.sampling import KeyedSampler, Part

POOLED = 14
POSITIVE_FRACTION = 0.25
LEAST_SCORE = 0.05
MOST_DETECTIONS = 100
"""As torchvision's Faster R-CNN and detectron2 have them, and overlaps of 0.5 for a match and for suppression."""

MASKS_AT_ONCE = 16
"""Objects of an image whose masks are compared with regions at once: those of one may have a billion pixels."""

Losses = dict[str, tuple[Tensor, int]]
"""By name a mean (scalar) and the number of examples it is over."""


@dataclass(frozen=True, slots=True)
class Target:
    """The objects of a training image that is `scale` times (across, down) what the data set gives."""

    boxes: Tensor
    """(k, 4) left, top, right, bottom in pixels of the training image, in the detector's dtype."""
    classes: Tensor
    """(k,) int64, from 0."""
    masks: Callable[[Tensor], Tensor] | None
    """From places (n,) of objects to their masks (n, H, W), of 0 and 1 in the pixels of the data set, on the device of
    the boxes: a batch may have more of them than its memory takes."""
    scale: tuple[float, float]

    def for_torchvision(self) -> dict[str, Tensor]:
        """Boxes and labels; torchvision's label 0 is the background."""
        return {"boxes": self.boxes, "labels": self.classes + 1}


class RegionHead(RoIHeads):  # type: ignore[misc]
    """From maps of the trunk and proposed boxes to losses, or to boxes with scores, classes and masks."""

    def __init__(
        self,
        maps: nn.Module,
        box_predictor: nn.Module,
        mask_predictor: nn.Module | None,
        *,
        stride: int,
        regions: int,
        network: Callable[[nn.Module, Tensor], Tensor],
    ) -> None:
        """`maps`: (n, C, 14, 14) → (n, F, 7, 7); `stride`: pixels a cell of the trunk's maps; `regions`: of an image
        that are trained on; `network(module, x)` is how a module is applied: in its precision."""
        super().__init__(
            RoIAlign(POOLED, 1.0 / stride, sampling_ratio=0, aligned=True), maps, box_predictor,
            0.5, 0.5, regions, POSITIVE_FRACTION, None, LEAST_SCORE, 0.5, MOST_DETECTIONS,
        )  # fmt: skip
        self.fg_bg_sampler = KeyedSampler(Part.REGIONS, regions, POSITIVE_FRACTION)
        self.mask_predictor = mask_predictor
        self._network = network

    def losses(self, features: Tensor, proposals: list[Tensor], targets: list[Target]) -> Losses:
        """`features` (n, C, h, w) of images with `proposals` (k, 4) each: `class` and `box`, means over the drawn
        regions, and with masks `mask`, the mean over those of them that are objects."""
        boxes, matched, labels, deltas = self.select_training_samples(proposals, [t.for_torchvision() for t in targets])
        maps, logits, regression = self._read(features, boxes)
        of_class, of_box = fastrcnn_loss(logits, regression, labels, deltas)
        count = len(logits)
        found: Losses = {"class": (of_class, count), "box": (of_box, count)}
        if self.mask_predictor is not None:
            found["mask"] = self._mask_loss(self.mask_predictor, maps, boxes, matched, labels, targets)
        return found

    def _mask_loss(
        self,
        predictor: nn.Module,
        maps: Tensor,
        boxes: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        targets: list[Target],
    ) -> tuple[Tensor, int]:
        every = torch.cat(labels)
        objects = torch.where(every > 0)[0]
        logits = self._network(predictor, maps[objects])
        wanted = [
            mask_targets(target, b[of > 0], m[of > 0], logits.shape[-1])
            for target, b, m, of in zip(targets, boxes, matched, labels, strict=True)
        ]
        if not len(objects):
            return logits.sum() * 0.0, 0
        mine = logits[torch.arange(len(objects), device=logits.device), every[objects]]
        return F.binary_cross_entropy_with_logits(mine, torch.cat(wanted).to(mine.dtype)), len(objects)

    def detect(
        self, features: Tensor, proposals: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Boxes (k, 4), scores (k,), classes (k,) from 0 and mask probabilities (k, M, M) of one image of `size`
        (height, width) pixels with `features` (1, C, h, w) and `proposals` (p, 4), best first."""
        if not len(proposals):
            none = features.new_empty((0, 4))
            masks = None if self.mask_predictor is None else features.new_empty((0, POOLED, POOLED))
            return none, none[:, 0], none[:, 0].long(), masks
        _, logits, regression = self._read(features, [proposals])
        (boxes,), (scores,), (labels,) = self.postprocess_detections(logits, regression, [proposals], [size])
        masks = None
        if self.mask_predictor is not None:
            maps, _, _ = self._read(features, [boxes])
            masks = maskrcnn_inference(self._network(self.mask_predictor, maps), [labels])[0][:, 0]
        return boxes, scores, labels - 1, masks

    def _read(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        maps = self._network(self.box_head, self.box_roi_pool(features, boxes))
        logits, regression = self.box_predictor(maps.mean(dim=(2, 3)))
        return maps, logits, regression


def mask_targets(target: Target, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
    """What the mask of each box (k, 4) should be: (k, side, side) of 0 and 1, the mask of the object `matched` (k,) cut
    out by the box, a cell being 1 where the object covers at least half of it.

    The boxes are brought to the pixels of the masks, not the masks to those of the boxes.
    """
    assert target.masks is not None
    across, down = target.scale
    there = boxes / boxes.new_tensor([across, down, across, down])
    wanted = boxes.new_zeros((len(boxes), side, side))
    for objects in torch.unique(matched).split(MASKS_AT_ONCE):
        mine = torch.isin(matched, objects)
        regions = torch.cat([torch.searchsorted(objects, matched[mine])[:, None].to(boxes), there[mine]], dim=1)
        masks = target.masks(objects)[:, None].to(boxes.dtype)
        covered: Tensor = roi_align(masks, regions, (side, side), sampling_ratio=0, aligned=True)
        wanted[mine] = (covered[:, 0] >= 0.5).to(boxes.dtype)
    return wanted


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities (k, M, M) over boxes (k, 4) → (k, H, W) bool at `size`: where the probability, interpolated between
    the centres of the cells and 0 beyond the box, is at least one half.

    Exact to the fraction of a pixel; torchvision's paste_masks_in_image rounds boxes to whole pixels, which on an
    object of 20 px costs a tenth of the overlap.
    """
    height, width = size
    out = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    columns = torch.arange(width, device=masks.device, dtype=masks.dtype) + 0.5
    rows = torch.arange(height, device=masks.device, dtype=masks.dtype) + 0.5
    for place, (mask, (left, top, right, bottom)) in enumerate(zip(masks, boxes.unbind(), strict=True)):
        x = (columns - left) / (right - left) * 2 - 1
        y = (rows - top) / (bottom - top) * 2 - 1
        grid = torch.stack([x[None, :].expand(height, width), y[:, None].expand(height, width)], dim=2)
        # Cells at the border reach to the border of the box, half a cell beyond their centre.
        drawn = F.grid_sample(mask[None, None], grid[None], padding_mode="border", align_corners=False)[0, 0]
        inside = (x.abs() <= 1)[None, :] & (y.abs() <= 1)[:, None]
        out[place] = (drawn >= 0.5) & inside
    return out
