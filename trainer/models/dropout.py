"""Layers that draw random numbers in their forward pass. A backbone has none that draws.

Every draw of a run is keyed by seed, epoch, image and view, so that a curve does not depend on the number
of ranks or on where a run was resumed; a dropout layer draws from torch's own generator instead.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth


def drawing_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Dropout, stochastic depth and attention with dropout of a probability above 0, by name."""
    return {name: module for name, module in network.named_modules() if _probability(module) > 0}


def switch_off(network: nn.Module) -> None:
    """Set the probability of every drawing layer to 0: the layer then returns what it is given, and draws nothing."""
    for module in drawing_layers(network).values():
        setattr(module, "dropout" if isinstance(module, nn.MultiheadAttention) else "p", 0.0)


def _probability(module: nn.Module) -> float:
    if isinstance(module, _DropoutNd | StochasticDepth):
        return float(module.p)
    return float(module.dropout) if isinstance(module, nn.MultiheadAttention) else 0.0
