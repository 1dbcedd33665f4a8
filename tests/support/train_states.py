"""A small state of training on the CPU, and views for its steps, for tests."""

from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs import PretrainSpec
from trainer.optim.schedules import Schedule
from trainer.train_state import TrainState

BATCH = 12
CPU = torch.device("cpu")


def built(**changes: Any) -> TrainState:
    spec = PretrainSpec.model_validate(
        {
            "data": "digits",
            "backbone": {"name": "tiny"},
            "projector": {"widths": [24, 16]},
            "optimizer": {"reference_batch_size": None, "learning_rate": 2.0, "bias_learning_rate": 0.01},
            "batch_size": BATCH,
            **changes,
        }
    )
    return TrainState(spec, Schedule(0, 100, 1.0), CPU)


def views(step: int) -> Tensor:
    """(2, BATCH, 3, 16, 16) uint8: two related views."""
    generator = torch.Generator().manual_seed(step)
    both = torch.randint(0, 256, (2, BATCH, 3, 16, 16), generator=generator, dtype=torch.uint8)
    both[1] = (both[0].float() * 0.7 + both[1].float() * 0.3).to(torch.uint8)
    return both
