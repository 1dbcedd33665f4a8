"""Backbones by name: images in, one feature vector per image out."""

from __future__ import annotations

import difflib
from itertools import pairwise

import torch
import torchvision
from torch import Tensor, nn

from trainer.models.seeding import drawn_from
from trainer.specs.common import BackboneSpec

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
NAMES = (*RESNETS, "tiny")


class Tiny(nn.Module):
    """Four 3x3 convolutions with BN and ReLU, each but the first halving the side, and a global average.

    For images of about 32 px on a CPU. (n, 3, H, W) → (n, 128). It has one stem and no residual branches, so the
    spec's `stem` and `zero_init_residual` do not touch it.
    """

    features = 128

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, self.features)
        layers: list[nn.Module] = []
        for place, (narrow, wide) in enumerate(pairwise(widths)):
            convolution = nn.Conv2d(narrow, wide, 3, stride=1 if place == 0 else 2, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layers(images)
        return maps.mean(dim=(2, 3))


def build_backbone(spec: BackboneSpec, *, seed: int) -> nn.Module:
    """The untrained backbone: forward (n, 3, H, W) → (n, features), with an attribute `features`.

    Float32 on the CPU, initialised from `seed` alone; torch's generators are left as they were.

    Raises:
        ValueError: the name is not known here.
    """
    if spec.name not in NAMES:
        near = difflib.get_close_matches(spec.name, NAMES, n=1)
        raise ValueError(f"unknown backbone {spec.name!r}; {f'did you mean {near[0]!r}?' if near else NAMES}")
    with drawn_from(seed, "backbone"):
        return Tiny() if spec.name == "tiny" else _resnet(spec)


def _resnet(spec: BackboneSpec) -> nn.Module:
    network = torchvision.models.get_model(spec.name, weights=None, zero_init_residual=spec.zero_init_residual)
    network.features = network.fc.in_features
    network.fc = nn.Identity()
    if spec.stem == "small":
        network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    assert isinstance(network, nn.Module)
    return network


def empty_backbone(spec: BackboneSpec) -> nn.Module:
    """The same module without memory (meta device): for counting, not for computing."""
    with torch.device("meta"):
        return build_backbone(spec, seed=0)
