"""The VICReg loss by cases worked by hand, by its statement in plain autograd, and by its laws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from barlow_lab.specs import VicregSpec
from trainer.objectives import vicreg
from trainer.objectives.base import Terms, build_objective

DIAMOND = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
few = settings(max_examples=20, deadline=None)


def spec(**fields: float) -> VicregSpec:
    return VicregSpec.model_validate({"name": "vicreg", **fields})


def terms(z_a: Tensor, z_b: Tensor, **fields: float) -> Terms:
    return build_objective(spec(**fields))(z_a, z_b)


def stated(z_a: Tensor, z_b: Tensor, of: VicregSpec) -> Tensor:
    """The loss as the reference code states it, by torch's own variance and covariance."""
    loss = of.invariance * F.mse_loss(z_a, z_b)
    for z in (z_a, z_b):
        loss = loss + of.variance / 2 * F.relu(1 - (z.var(0) + of.epsilon).sqrt()).mean()
        covariances = torch.cov(z.mT)
        beside = covariances - torch.diag(covariances.diagonal())
        loss = loss + of.covariance * beside.square().sum() / z.shape[1]
    return loss


@pytest.mark.parametrize(
    ("z_a", "z_b", "loss"),
    [
        (0 * DIAMOND, 0 * DIAMOND, 24.75),
        (0 * DIAMOND, 0 * DIAMOND + 1, 49.75),
        (DIAMOND, DIAMOND, 0.0),
        (DIAMOND, DIAMOND.flip(1), 50.0),
        (DIAMOND[:, :1].expand(4, 2), DIAMOND[:, :1].expand(4, 2), 32 / 9),
        (0.5 * DIAMOND, 0.5 * DIAMOND, 10.5640784),
    ],
    ids=["collapsed", "collapsed apart", "perfect", "swapped", "one feature twice", "half as wide"],
)
def test_cases_worked_by_hand(z_a: Tensor, z_b: Tensor, loss: float) -> None:
    assert terms(z_a, z_b).loss.item() == pytest.approx(loss, abs=1e-7)


def test_the_parts_are_without_their_weights() -> None:
    found = terms(0.5 * DIAMOND, 0.5 * DIAMOND.flip(1), invariance=2, variance=3, covariance=5)
    std = (1 / 3 + 1e-4) ** 0.5
    assert {name: part.item() for name, part in found.parts.items()} == pytest.approx(
        {"invariance": 0.5, "variance": 1 - std, "covariance": 0.0, "feature_std_mean": std}
    )
    assert found.loss.item() == pytest.approx(2 * 0.5 + 3 * (1 - std))
    assert not found.known
    assert all(not part.requires_grad for part in found.parts.values())


@few
@given(
    seed=st.integers(0, 10_000),
    weights=st.tuples(*[st.floats(0.1, 30)] * 3),
    width=st.floats(0.1, 3),
    rows=st.integers(1, 5),
)
def test_loss_and_gradient_are_those_of_its_statement(
    seed: int, weights: tuple[float, float, float], width: float, rows: int
) -> None:
    """With the covariances whole, and a shard of rows at a time."""
    of = spec(**dict(zip(("invariance", "variance", "covariance"), weights, strict=True)))
    generator = torch.Generator().manual_seed(seed)
    views = 5 + width * torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    views.requires_grad_()
    right = stated(views[0], views[1], of)
    (expected,) = torch.autograd.grad(right, views)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vicreg, "rows_held", lambda features, ranks: rows)
        loss = build_objective(of)(views[0], views[1]).loss
    (found,) = torch.autograd.grad(3 * loss, views)
    torch.testing.assert_close(loss, right, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, 3 * expected, rtol=1e-9, atol=1e-12)


def test_a_feature_wide_enough_is_not_pulled_and_a_collapsed_one_not_blown_up() -> None:
    """The hinge has no gradient from 1 on, and none where a feature is constant: its statement has none there."""
    views = torch.stack([2 * DIAMOND, 0 * DIAMOND + 3]).requires_grad_()
    loss = terms(views[0], views[1], invariance=0, covariance=0).loss
    (gradient,) = torch.autograd.grad(loss, views)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_16_bits_are_computed_in_32_and_the_gradient_comes_back_in_its_own(dtype: torch.dtype) -> None:
    views = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()
    loss = terms(views[0], views[1]).loss
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, views)
    assert gradient.dtype == dtype
    right = stated(*views.detach().double(), spec())
    assert loss.item() == pytest.approx(right.item(), rel=1e-5)


@pytest.mark.parametrize(("a", "b"), [((4, 2), (4, 3)), ((4, 2), (3, 2)), ((4,), (4,)), ((1, 2), (1, 2))])
def test_what_has_no_covariance_is_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two \(n, d\) embeddings|at least 2 samples"):
        terms(torch.zeros(a), torch.zeros(b))
