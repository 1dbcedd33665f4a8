"""A backbone of one's own, built from the entry point that an installed distribution registers.

The object behind the name is a class or a function that, called without arguments, returns an nn.Module:

- forward takes (n, 3, H, W) and returns (n, feature_width) features; `feature_width` is an attribute, an int.
- Weights are drawn from torch's generator alone, so that they come from the job's seed.
- Forward draws nothing: no dropout, no stochastic depth (`trainer.models.dropout` says why).
- Its state_dict holds tensors alone: that is what a checkpoint and the published file keep.
- Batch normalisation is nn.BatchNorm*d with affine parameters and a running average; it is synchronised for you.

    class WideTiny(nn.Module):
        feature_width = 256
        def __init__(self) -> None: ...
        def forward(self, images: Tensor) -> Tensor: ...
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from barlow_lab.specs import Fault, SpecError
from barlow_lab.specs.common import unknown_backbone
from barlow_lab.specs.registered import BACKBONES, registered
from trainer.models.dropout import drawing_layers


def build_own(name: str, side: int | None) -> nn.Module:
    """The network that is registered as `name`, tried on images of `side` px if that is given.

    Raises:
        SpecError: none is, it cannot be built, or is not what a backbone has to be.
    """
    entry = registered(BACKBONES).get(name)
    if entry is None:
        raise SpecError([Fault("/backbone/name", unknown_backbone(name))])
    try:
        network = entry.load()()
    except Exception as error:  # code of others may raise anything
        raise _refusal(name, entry.value, f"cannot be built ({type(error).__name__}: {error})") from error
    if not isinstance(network, nn.Module):
        raise _refusal(name, entry.value, f"gives a {type(network).__name__} when called, not an nn.Module")
    width = getattr(network, "feature_width", None)
    if not isinstance(width, int) or width < 1:
        raise _refusal(name, entry.value, "has no attribute feature_width, the number of features per image")
    if drawing := drawing_layers(network):
        raise _refusal(name, entry.value, f"has dropout, which makes a curve depend on the ranks: {', '.join(drawing)}")
    if others := [key for key, value in network.state_dict().items() if not isinstance(value, Tensor)]:
        raise _refusal(name, entry.value, f"keeps what is no tensor in its state_dict: {', '.join(others)}")
    if side is not None:
        _try_out(network, side, width, name, entry.value)
    return network.train()


def _try_out(network: nn.Module, side: int, width: int, name: str, place: str) -> None:
    """One image as it is judged, two as it is trained, by a copy: a pass may change its buffers, or make some.

    Raises:
        SpecError: it does not take them, or does not give what it promises.
    """
    for training, images in ((False, 1), (True, 2)):
        try:
            tried = copy.deepcopy(network).train(training)
            before = torch.get_rng_state()
            with torch.no_grad():
                shape = tuple(tried(torch.zeros(images, 3, side, side)).shape)
            drew = not torch.equal(before, torch.get_rng_state())
        except Exception as error:
            said = f"takes no images of {side} px {'in training' if training else 'in evaluation'} ({error})"
            raise _refusal(name, place, said, "change views.size, or mend it") from error
        if drew:
            said = "draws random numbers in its forward pass, which makes a curve depend on the ranks"
            raise _refusal(name, place, said)
        if shape != (images, width):
            said = f"gives features of shape {shape} for {images} image(s), not ({images}, feature_width = {width})"
            raise _refusal(name, place, said)


def _refusal(name: str, place: str, said: str, remedy: str = "mend it") -> SpecError:
    return SpecError([Fault("/backbone/name", f"backbone {name!r} ({place}) {said}; {remedy} where it is defined")])
