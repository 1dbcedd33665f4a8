"""The three forms of the objective are one function: float64, against the paper's own statement of it.

The same on several ranks: test_runtime_ranks.py.
"""

from typing import get_args

import pytest
import stated_objective
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from barlow_lab.specs.loss_form import LossForm, choose_form
from trainer.objectives.barlow_twins import barlow_twins

FORMS = get_args(LossForm)
TOLERANCE = 1e-12


def _views(seed: int, samples: int, features: int, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shared, a, b = torch.randn(3, samples, features, generator=generator, dtype=torch.float64)
    return 5 + shared + noise * a, shared + noise * b


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(8, 40),
    features=st.integers(2, 40),
    lambda_=st.floats(1e-3, 1),
    noise=st.floats(0.3, 2),
)
def test_loss_and_gradient_are_those_of_the_statement(
    form: LossForm, seed: int, samples: int, features: int, lambda_: float, noise: float
):
    """Not of a few samples that all but agree: their gradient is what remains of sums that cancel, in any form."""
    views = [view.requires_grad_() for view in _views(seed, samples, features, noise)]
    loss = barlow_twins(*views, lambda_, form).loss
    gradient = torch.stack(torch.autograd.grad(loss, views))
    expected_loss, expected = stated_objective.loss_and_gradient(*(view.detach() for view in views), lambda_)
    assert (loss - expected_loss).abs() <= TOLERANCE * expected_loss
    assert (gradient - expected).norm() <= TOLERANCE * expected.norm()


class _Operations(TorchDispatchMode):
    """Counts the multiplications and additions of matrix products, and the numbers of the largest product."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            left, right = args[-2:]
            self.count += 2 * left.shape[0] * left.shape[1] * right.shape[1]
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize(("form", "operations", "largest"), [
    ("direct", 6 * 32 * 256**2, 256**2),
    ("sharded", 6 * 32 * 256**2, 256**2 // 8),
    ("dual", 8 * 32**2 * 256, 32 * 256),
])  # fmt: skip
def test_each_form_costs_what_is_said_of_it(form: LossForm, operations: int, largest: int):
    """Loss and gradient; the dual holds no matrix larger than the embeddings (32, 256)."""
    a, b = (view.requires_grad_() for view in _views(0, 32, 256))
    with _Operations() as found:
        barlow_twins(a, b, 0.0051, form).loss.backward()
    assert (found.count, found.largest) == (operations, largest)


@pytest.mark.parametrize(("samples", "features"), [(11, 16), (12, 16), (40, 16)])
def test_left_to_itself_it_takes_the_form_that_is_chosen(samples: int, features: int):
    views = _views(0, samples, features)
    counts = []
    for form in ("auto", choose_form(samples, features, 1)):
        with _Operations() as found:
            barlow_twins(*views, 0.0051, form)
        counts.append(found.count)
    assert counts[0] == counts[1]
