"""A look at a network that is being trained, after which all is as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Within: `module` is in evaluation mode. After: every mode, every buffer and torch's generators are as before."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        module.eval()
        try:
            yield
        finally:
            for part, training in modes:
                part.training = training
            for buffer, before in buffers:
                buffer.copy_(before)
