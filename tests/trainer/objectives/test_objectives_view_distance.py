"""Invariance alone collapses, and a hinge on variances keeps it from that; its statement and its laws."""

from typing import Any

import pytest
import runs
import torch
from held_numbers import bytes_held
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from barlow_lab.specs.objectives.view_distance import ViewDistanceSpec
from trainer.objectives.base import Terms, build_objective
from trainer.pretraining import pretrain

DIAMOND = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)


def terms(z_a: Tensor, z_b: Tensor, **fields: Any) -> Terms:
    return build_objective(ViewDistanceSpec.model_validate({"name": "view_distance", **fields}))(z_a, z_b)


@pytest.mark.parametrize(
    ("z_a", "z_b", "variance", "loss"),
    [
        (0 * DIAMOND, 0 * DIAMOND + 3, 0, 18.0),
        (DIAMOND, DIAMOND.flip(1), 0, 4.0),
        (DIAMOND, DIAMOND.flip(1), 25, 4.0),
        (0 * DIAMOND, 0 * DIAMOND, 0, 0.0),
        (0 * DIAMOND, 0 * DIAMOND, 25, 24.75),
        (0.5 * DIAMOND, 0.5 * DIAMOND, 25, 10.5640784),
    ],
    ids=["apart", "swapped", "swapped and wide", "collapsed", "collapsed and asked to vary", "half as wide"],
)
def test_cases_worked_by_hand(z_a: Tensor, z_b: Tensor, variance: float, loss: float) -> None:
    """The distance is a sum over features: 3^2 of each of two, and of two rows of four 2^2 of each."""
    assert terms(z_a, z_b, variance=variance).loss.item() == pytest.approx(loss, abs=1e-7)


def test_of_standardised_features_the_distance_is_what_correlations_lack_to_1() -> None:
    """2 (d - tr C), by N - 1 in place of N: so the on-diagonal term and the distance have the same minima there."""
    views = torch.randn(2, 50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    views[1] += 0.5 * views[0]
    a, b = (views - views.mean(1, keepdim=True)) / views.std(1, correction=0, keepdim=True)
    trace = (a * b).mean(0).sum()
    torch.testing.assert_close(terms(a, b).loss, 2 * (5 - trace))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), variance=st.floats(0, 30), wide=st.floats(0.1, 3))
def test_loss_and_gradient_are_those_of_its_statement(seed: int, variance: float, wide: float) -> None:
    views = 5 + wide * torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    views.requires_grad_()
    right = (views[0] - views[1]).norm(dim=1).square().mean()
    right = right + variance / 2 * sum(F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in views)
    (expected,) = torch.autograd.grad(right, views)
    loss = terms(views[0], views[1], variance=variance).loss
    (found,) = torch.autograd.grad(3 * loss, views)
    torch.testing.assert_close(loss, right, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, 3 * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_16_bits_are_computed_in_32_and_the_gradient_comes_back_in_its_own(dtype: torch.dtype) -> None:
    views = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = terms(views[0], views[1], variance=2.0)
    assert found.loss.dtype == torch.float32
    assert all(not part.requires_grad for part in found.parts.values())
    (gradient,) = torch.autograd.grad(found.loss, views)
    assert gradient.dtype == dtype
    right = terms(*views.detach().double(), variance=2.0).loss
    assert found.loss.item() == pytest.approx(right.item(), rel=1e-5)


@pytest.mark.parametrize(("a", "b"), [((4, 2), (4, 3)), ((4, 2), (3, 2)), ((4,), (4,)), ((1, 2), (1, 2))])
def test_what_has_no_variance_is_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two \(n, d\) embeddings|at least 2 samples"):
        terms(torch.zeros(a), torch.zeros(b))


def test_no_more_numbers_are_held_than_the_planner_says() -> None:
    """Beside the embeddings and their gradient, there and back."""
    views = torch.randn(2, 1024, 64).requires_grad_()
    z_a, z_b = views.unbind()
    spec = ViewDistanceSpec(name="view_distance", variance=2.0)
    loss = build_objective(spec)
    held = bytes_held(lambda: torch.autograd.grad(loss(z_a, z_b).loss, views)) / 4
    said = spec.numbers_held(samples=1024, features=64, ranks=1)
    assert 0.6 * said < held - views.numel() < said


def test_alone_it_collapses_and_with_the_hinge_it_does_not(tmp_path):
    """Twenty steps of a run: all features wane, where with the hinge they grow towards 1."""
    ends, starts = {}, {}
    for variance in (0.0, 200.0):
        spec = runs.spec(
            objective={"name": "view_distance", "variance": variance},
            optimizer={"name": "adamw", "learning_rate": 1e-2, "reference_batch_size": None},
        )
        folder = tmp_path / f"{variance:g}"
        assert pretrain(spec, runs.context(folder)).outcome == "ok"
        series = runs.series(folder)
        starts[variance], ends[variance] = ({n: v for (n, s), v in series.items() if s == step} for step in (1, 20))
    assert ends[0.0]["feature_std_mean"] < 0.25 * starts[0.0]["feature_std_mean"]
    assert ends[0.0]["loss"] < 0.05 * starts[0.0]["loss"]
    assert ends[200.0]["feature_std_mean"] > 1.2 * starts[200.0]["feature_std_mean"]
