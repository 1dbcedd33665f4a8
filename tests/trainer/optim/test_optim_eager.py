"""Optimisers that import nothing of torch.compile, and are torch's in all else."""

import sys

import pytest
import torch

from trainer.optim.eager import AdamW, Sgd
from trainer.optim.lars import Lars

LARS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "trust_coefficient": 0.001}
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
ADAMW = {"lr": 0.1, "weight_decay": 0.01, "fused": True}


def stepped(optimizer, options, times=3):
    """A parameter and the optimiser's state after a few steps, of which the last ones were taken from a saved state."""
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
    made = optimizer([{"params": [parameter]}], **options)
    for number in range(times):
        if number == times - 1:
            saved, made = made.state_dict(), optimizer([{"params": [parameter]}], **options)
            made.load_state_dict(saved)
        made.zero_grad()
        (parameter**3).sum().backward()
        made.step()
    assert parameter.requires_grad
    return [parameter.detach(), *(value for value in made.state[parameter].values())]


@pytest.mark.parametrize(
    ("optimizer", "options"), [(Lars, LARS), (Sgd, SGD), (Sgd, {**SGD, "fused": True}), (AdamW, ADAMW)]
)
def test_no_method_imports_the_compiler(optimizer, options, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    stepped(optimizer, options)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [(Sgd, torch.optim.SGD, SGD), (Sgd, torch.optim.SGD, {**SGD, "fused": True}), (AdamW, torch.optim.AdamW, ADAMW)],
)
def test_the_bits_are_those_of_torch(ours, theirs, options):
    for one, other in zip(stepped(ours, options), stepped(theirs, options), strict=True):
        assert torch.equal(one, other)
