"""torch's optimisers without what torch puts around their methods for torch.compile.

The first call of a method as it comes imports torch._dynamo: as much CPU time as all else that a rank imports, and in
the middle of a phase that has to speak up every now and then. No optimiser is compiled here. Tests:
tests/trainer/optim/test_optim_eager.py.
"""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch

OptimizerClass = TypeVar("OptimizerClass", bound=type[torch.optim.Optimizer])

_METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def eager(optimizer: OptimizerClass) -> OptimizerClass:
    """Class decorator: the methods as they are written; `step` tracks no gradients."""
    for name in _METHODS:
        setattr(optimizer, name, inspect.unwrap(getattr(optimizer, name)))
    step = inspect.unwrap(optimizer.step)
    setattr(optimizer, "step", torch.no_grad()(step))  # noqa: B010 - to mypy a method is no variable
    return optimizer


@eager
class Sgd(torch.optim.SGD):
    """torch's SGD."""


@eager
class AdamW(torch.optim.AdamW):
    """torch's AdamW."""
