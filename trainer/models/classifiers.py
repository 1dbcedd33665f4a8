"""Any classification network of torchvision as a backbone: its classifier is taken off."""

from __future__ import annotations

from functools import partial

import torchvision
from torch import nn
from torchvision.models import MNASNet, ResNet

from barlow_lab.specs.common import BackboneSpec
from trainer.models import dropout

CLASSIFIERS: tuple[str, ...] = tuple(torchvision.models.list_models(module=torchvision.models))

_CLASSES = 1000
# Both have auxiliary heads, which would make a tuple of their output and need large images; torchvision asks that
# init_weights be said.
_NO_HEADS = {"aux_logits": False, "init_weights": True}
_ARGUMENTS = {"googlenet": _NO_HEADS, "inception_v3": _NO_HEADS}


def is_resnet(name: str) -> bool:
    """Whether the classifier is of torchvision's ResNet family: the one with `zero_init_residual` and a small stem."""
    return bool(torchvision.models.get_model_builder(name).__module__ == ResNet.__module__)


def build_classifier(spec: BackboneSpec) -> nn.Module:
    """The network of torchvision with an identity where it makes class logits: (n, 3, H, W) → (n, feature_width).

    The features are what entered the last linear layer (of SqueezeNet the last convolution, averaged). What stands
    before it stays: the norm of ConvNeXt, the hidden layers of VGG, AlexNet, MobileNetV3 and MaxViT. Dropout and
    stochastic depth are off (`trainer.models.dropout`). Batch normalisation keeps the momentum of its architecture,
    which is small in MNASNet (0.0003), MaxViT and EfficientNet-B5 to B7 (0.01): their running statistics, by which
    they are judged, take thousands of steps to come near.
    """
    family = is_resnet(spec.name)
    arguments = {"zero_init_residual": spec.zero_init_residual} if family else _ARGUMENTS.get(spec.name, {})
    network = torchvision.models.get_model(spec.name, weights=None, **arguments)
    network.feature_width = _take_off_classifier(network)
    dropout.switch_off(network)
    if spec.stem == "small":
        assert family, "the spec refuses it for others"
        _put_small_stem(network)
    if isinstance(network, MNASNet):
        # Its own loader asks for a version number that torch.save keeps beside the tensors and safetensors does not.
        network._load_from_state_dict = partial(nn.Module._load_from_state_dict, network)
    assert isinstance(network, nn.Module)
    return network


def _take_off_classifier(network: nn.Module) -> int:
    """Put an identity in the place of the layer that makes the class logits; returns the width of what enters it."""
    layers = list(network.named_modules())
    linear = [(name, (layer.in_features, layer.out_features)) for name, layer in layers if isinstance(layer, nn.Linear)]
    maps = [(name, (layer.in_channels, layer.out_channels)) for name, layer in layers if isinstance(layer, nn.Conv2d)]
    name, (width, classes) = (linear or maps)[-1]
    assert classes == _CLASSES, f"{name} does not make the class logits"
    network.set_submodule(name, nn.Identity())
    return width


def _put_small_stem(network: nn.Module) -> None:
    """A 3x3 stride-1 first convolution and no max-pool, for images up to ~64 px."""
    first = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    network.conv1, network.maxpool = first, nn.Identity()
