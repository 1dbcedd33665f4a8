"""Faster R-CNN and Mask R-CNN on the C4 maps of a ResNet (Zbontar et al. 2021, C.2), of torchvision's detection parts.

Stem and layers 1 to 3 of the backbone make the maps; anchors of every size and ratio stand on each cell of them;
layer 4, and a batch normalisation after it, read each region (He et al. 2019, the configuration for pretrained
backbones that Barlow Twins follows). Nothing is frozen.

COCO's crowds are not trained on, and regions on them are background; VOC's difficult objects are trained on as any
other: both as in detectron2.

Regions, numbers of proposals and the drawing of weights are detectron2's. Losses and anchors are torchvision's: smooth
L1 with its bend at 1/9 in place of L1, the mean over the anchors that were drawn, should they be fewer than 256, and
anchors rounded to whole pixels. That configuration also computes the statistics of batch normalisation anew before a
test ("precise BN"); here the running ones are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from trainer.data.pixels import normalise
from trainer.models.detectors.regions import POOLED, Losses, RegionHead, Target, paste_masks
from trainer.models.detectors.sampling import Key, KeyedSampler, Part
from trainer.models.seeding import drawn_from

PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""Names of torchvision's ResNet, by which a backbone is taken apart."""

ANCHORS_TRAINED_ON = 256
MASK_WIDTH = 256


@dataclass(frozen=True, slots=True)
class DetectorForm:
    """What a detector is built to; the names are those of DetectionSpec."""

    classes: int
    masks: bool
    anchor_sizes: tuple[int, ...]
    anchor_ratios: tuple[float, ...]
    rois_per_image: int
    proposals_train: int
    proposals_test: int


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one image, best first, in the pixels that were asked for."""

    boxes: Tensor
    """(k, 4) left, top, right, bottom."""
    scores: Tensor
    """(k,)"""
    classes: Tensor
    """(k,) int64, from 0."""
    masks: Tensor | None
    """(k, H, W) bool."""


class C4Detector(nn.Module):
    """A detector around a backbone, whose modules it takes over."""

    def __init__(self, backbone: nn.Module, form: DetectorForm, *, seed: int, products: torch.dtype | None) -> None:
        """What the backbone does not bring is drawn from `seed`. `products`: dtype of the networks' products where it
        is not that of the parameters.

        Raises:
            ValueError: the backbone has not the parts of a ResNet.
        """
        super().__init__()
        missing = [name for name in PARTS if not isinstance(getattr(backbone, name, None), nn.Module)]
        if missing:
            raise ValueError(f"{type(backbone).__name__} has no {', '.join(missing)}")
        self._products = products
        parts = {name: getattr(backbone, name) for name in PARTS}
        layer4 = parts.pop("layer4")
        self.trunk = nn.Sequential()
        for name, module in parts.items():
            self.trunk.add_module(name, module)
        self.stride, self.trunk_width, self.width = _measured(self.trunk, layer4)
        with drawn_from(seed, "detector"):
            self.rpn = _proposals(self.trunk_width, form, products)
            self.regions = RegionHead(
                nn.Sequential(layer4, nn.BatchNorm2d(self.width)),
                _box_predictor(self.width, form.classes + 1),
                _mask_predictor(self.width, form.classes + 1) if form.masks else None,
                stride=self.stride,
                regions=form.rois_per_image,
                network=self._in_precision,
            )

    def drawn_state(self) -> dict[str, Tensor]:
        """What did not come with the backbone, by its name in `state_dict`."""
        brought = ("trunk.", "regions.box_head.0.")
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(brought)}

    def losses(self, images: Sequence[Tensor], targets: list[Target], keys: list[Key]) -> Losses:
        """The means that the detector is trained on, of images (3, h, w) uint8 of any sizes: `rpn_class` and `rpn_box`
        over the drawn anchors, `class` and `box` over the drawn regions, `mask` over the objects among them. The
        detector is in training mode; what is drawn depends on `keys` alone."""
        assert self.training
        self.rpn.fg_bg_sampler.keys = self.regions.fg_bg_sampler.keys = keys
        batch = self._batch(images)
        features = self._in_precision(self.trunk, batch.tensors)
        every = [target.for_torchvision() for target in targets]
        proposals, found = self.rpn(batch, {"0": features}, every)
        anchors = self.rpn.fg_bg_sampler.drawn
        of_anchors: Losses = {
            "rpn_class": (found["loss_objectness"], anchors),
            "rpn_box": (found["loss_rpn_box_reg"], anchors),
        }
        return {**of_anchors, **self.regions.losses(features, proposals, targets)}

    @torch.no_grad()
    def detect(self, image: Tensor, size: tuple[int, int]) -> Detections:
        """What is in an image (3, h, w) uint8, in the pixels of the image at `size` (height, width), which it was
        resized from. The detector is in evaluation mode; one image at a time, so that a result depends on no other
        one."""
        assert not self.training
        batch = self._batch([image])
        features = self._in_precision(self.trunk, batch.tensors)
        (proposals,), _ = self.rpn(batch, {"0": features})
        boxes, scores, classes, masks = self.regions.detect(features, proposals, batch.image_sizes[0])
        across, down = size[1] / image.shape[2], size[0] / image.shape[1]
        boxes = boxes * boxes.new_tensor([across, down, across, down])
        return Detections(boxes, scores, classes, None if masks is None else paste_masks(masks, boxes, size))

    def _batch(self, images: Sequence[Tensor]) -> ImageList:
        """Normalised, at the upper left of a common size that the stride divides; the rest is the mean pixel."""
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (-(-max(side) // self.stride) * self.stride for side in zip(*sizes, strict=True))
        dtype = self.rpn.head.cls_logits.weight.dtype
        tensors = torch.zeros((len(images), 3, height, width), dtype=dtype, device=images[0].device)
        for row, image in zip(tensors, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = normalise(image, dtype)
        return ImageList(tensors, sizes)

    def _in_precision(self, module: nn.Module, x: Tensor) -> Tensor:
        """`module(x)` with products in their dtype; out comes that of `x`, in which boxes are computed."""
        with _autocast(self._products, x.device):
            out: Tensor = module(x)
        return out.to(x.dtype)


class _Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's, whose labels and boxes of anchors are float32 whatever the network is in."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        dtype = anchors[0].dtype
        return [one.to(dtype) for one in labels], [one.to(dtype) for one in boxes]


class _ProposalHead(RPNHead):  # type: ignore[misc]
    """torchvision's, applied in its precision; out come logits and deltas in that of the parameters."""

    def __init__(self, width: int, anchors: int, products: torch.dtype | None) -> None:
        super().__init__(width, anchors)
        self._products = products

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        with _autocast(self._products, x[0].device):
            logits, deltas = super().forward(x)
        return [one.to(x[0].dtype) for one in logits], [one.to(x[0].dtype) for one in deltas]


def _autocast(products: torch.dtype | None, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=products or torch.bfloat16, enabled=products is not None)


def _measured(trunk: nn.Module, layer4: nn.Module) -> tuple[int, int, int]:
    """Pixels a cell of the trunk's maps, their width, and the width of what layer 4 makes of them; no memory
    changes."""
    side = 128
    device = next(trunk.parameters()).device
    modes = {module: module.training for part in (trunk, layer4) for module in part.modules()}
    with torch.no_grad():
        maps = trunk.eval()(torch.zeros(1, 3, side, side, device=device, dtype=next(trunk.parameters()).dtype))
        read = layer4.eval()(maps.new_zeros(1, maps.shape[1], POOLED, POOLED))
    for module, training in modes.items():
        module.training = training
    return side // maps.shape[-1], maps.shape[1], read.shape[1]


def _proposals(width: int, form: DetectorForm, products: torch.dtype | None) -> _Proposals:
    """Numbers as in detectron2's C4 configuration, which are torchvision's but for the proposals before suppression."""
    anchors = AnchorGenerator((form.anchor_sizes,), (form.anchor_ratios,))
    rpn = _Proposals(
        anchors,
        _ProposalHead(width, anchors.num_anchors_per_location()[0], products),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=ANCHORS_TRAINED_ON,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 6 * form.proposals_train, "testing": 6 * form.proposals_test},
        post_nms_top_n={"training": form.proposals_train, "testing": form.proposals_test},
        nms_thresh=0.7,
    )
    rpn.fg_bg_sampler = KeyedSampler(Part.ANCHORS, ANCHORS_TRAINED_ON, 0.5)
    return rpn


def _box_predictor(width: int, classes: int) -> FastRCNNPredictor:
    """Drawn as narrowly as in detectron2: at first every region is nearly as likely of each class and stays where it
    is."""
    predictor = FastRCNNPredictor(width, classes)
    for layer, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
    return predictor


def _mask_predictor(width: int, classes: int) -> MaskRCNNPredictor:
    """One deconvolution and a 1x1 convolution, drawn as in detectron2: at first every pixel is as likely as not."""
    predictor = MaskRCNNPredictor(width, MASK_WIDTH, classes)
    nn.init.normal_(predictor.mask_fcn_logits.weight, std=0.001)
    nn.init.zeros_(predictor.mask_fcn_logits.bias)
    return predictor
