"""`tiny_resnet`: a ResNet of torchvision's blocks and names, narrow enough for a CPU."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1

from barlow_lab.specs.common import BackboneSpec


class TinyResNet(nn.Module):
    """One basic block in each of four layers, 16, 32, 64 and 128 wide: (n, 3, H, W) → (n, 128).

    The modules have the names of torchvision's ResNet and layer k halves the side that layer k - 1 gives, from the
    second on, so whatever takes a ResNet apart by its layers (a C4 detector) takes this one apart, too. After the
    ImageNet stem layer 4 sees an image at 1/32 of its side, after the small one at 1/8. He initialisation by fan-out,
    as in torchvision.
    """

    feature_width = 128

    def __init__(self, *, small_stem: bool, zero_init_residual: bool) -> None:
        super().__init__()
        widths = (16, 16, 32, 64, self.feature_width)
        kernel, stride = (3, 1) if small_stem else (7, 2)
        self.conv1 = nn.Conv2d(3, widths[0], kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_block(narrow, wide, stride=1 if place == 0 else 2))
            for place, (narrow, wide) in enumerate(pairwise(widths))
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock) and zero_init_residual:
                nn.init.zeros_(module.bn2.weight)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        features: Tensor = self.avgpool(maps).flatten(1)
        return features


def _block(narrow: int, wide: int, *, stride: int) -> BasicBlock:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(conv1x1(narrow, wide, stride), nn.BatchNorm2d(wide))
    return BasicBlock(narrow, wide, stride, shortcut)


def build_tiny_resnet(spec: BackboneSpec) -> TinyResNet:
    """The network that a spec asks for, initialised by torch's generator as it stands."""
    return TinyResNet(small_stem=spec.stem == "small", zero_init_residual=spec.zero_init_residual)
