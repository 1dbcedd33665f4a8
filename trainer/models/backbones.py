"""Backbones by name: images in, one feature vector per image out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from barlow_lab.specs.common import BackboneSpec
from trainer.models.seeding import drawn_from


class Tiny(nn.Module):
    """Four 3x3 convolutions with BN and ReLU, each but the first halving the side, and a global average.

    For images of about 32 px on a CPU. (n, 3, H, W) → (n, 128). It has one stem and no residual branches, so the
    spec's `stem` and `zero_init_residual` do not touch it.
    """

    feature_width = 128

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, self.feature_width)
        layers: list[nn.Module] = []
        for place, (narrow, wide) in enumerate(pairwise(widths)):
            convolution = nn.Conv2d(narrow, wide, 3, stride=1 if place == 0 else 2, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layers(images)
        return maps.mean(dim=(2, 3))


def build_backbone(spec: BackboneSpec, *, seed: int, side: int | None = None) -> nn.Module:
    """The untrained backbone: forward (n, 3, H, W) → (n, feature_width), with `feature_width` as an attribute.

    `tiny`, `tiny_resnet`, any classification network of torchvision, or one that an installed distribution registers.
    Float32 on the CPU, initialised from `seed` alone; torch's generators are left as they were. Forward draws no random
    number. With `side` one of your own is tried on images of that size; what the others take is known
    (barlow_lab.specs.catalogue).

    Raises:
        SpecError: the name is not known here, or what it stands for is no backbone.
    """
    with drawn_from(seed, "backbone"):
        if spec.name == "tiny":
            return Tiny()
        # Late: torchvision takes as long to import as torch, and `tiny` needs none of it.
        from trainer.models.classifiers import CLASSIFIERS, build_classifier
        from trainer.models.own import build_own
        from trainer.models.tiny_resnet import build_tiny_resnet

        if spec.name == "tiny_resnet":
            return build_tiny_resnet(spec)
        if spec.name in CLASSIFIERS:
            return build_classifier(spec)
        return build_own(spec.name, side)


def empty_backbone(spec: BackboneSpec) -> nn.Module:
    """The same module without memory (meta device): for counting, not for computing."""
    with torch.device("meta"), _NumbersOnTheCpu():
        backbone = build_backbone(spec, seed=0)
    return backbone.to("meta")


class _NumbersOnTheCpu(TorchFunctionMode):
    """Numbers written out or in a row have values where tensors have none: RegNet computes its widths from them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **({"device": "cpu"} if func in (torch.arange, torch.tensor) else {}) | (kwargs or {}))
