"""Files of weights as others write them, of a network that is small, and what is read back of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from barlow_lab.specs import BackboneSpec
from trainer.models.backbones import build_backbone
from trainer.models.foreign import load_foreign

TINY = BackboneSpec(name="tiny_resnet", stem="small")
HEAD = {"fc.weight": torch.ones(4, 128), "fc.bias": torch.ones(4)}
PROJECTOR = {"module.projector.0.weight": torch.ones(8, 128), "module.bn.running_var": torch.ones(8)}


def trained(network: nn.Module) -> nn.Module:
    """Weights and statistics that are nobody's initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for tensor in itertools.chain(network.parameters(), network.buffers()):
            if tensor.is_floating_point():
                tensor.data.uniform_(0.01, 0.2)
    return network.eval()


@cache
def source() -> nn.Module:
    return trained(build_backbone(TINY, seed=1))


def weights() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in source().state_dict().items()}


def prefixed(prefix: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in (weights() if state is None else state).items()}


def saved(folder: Path, value: Any, **options: Any) -> Path:
    path = folder / "weights.pth"
    torch.save(value, path, **options)
    return path


def loaded(path: Path, spec: BackboneSpec = TINY) -> nn.Module:
    return load_foreign(path, spec, lambda: None).module.eval()


def features(network: nn.Module, side: int = 16) -> Tensor:
    with torch.no_grad():
        return network(torch.linspace(-2, 2, 2 * 3 * side * side).view(2, 3, side, side))
