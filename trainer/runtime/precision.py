"""What precision means for a run: the dtype of parameters and inputs, and what autocast does."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from trainer.specs.pretrain import Precision

PARAMETER_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.float32,
    "fp64": torch.float64,
}
"""Parameters, optimiser state and statistics; bf16 is the dtype of the network's products only."""


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """The context of a forward pass."""
    context: AbstractContextManager[None] = torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == "bf16"
    )
    return context
