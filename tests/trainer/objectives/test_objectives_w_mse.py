"""W-MSE by cases worked by hand, by its statement in plain autograd, by its laws; singular covariances."""

from typing import Any

import pytest
import torch
from held_numbers import bytes_held
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from barlow_lab.specs.objectives.w_mse import WMseSpec
from trainer.objectives.base import Objective, Run, Terms, build_objective
from trainer.objectives.w_mse import REMEDY, whiten

few = settings(max_examples=15, deadline=None)
BATCH, WIDTH = 12, 2


def objective(batch: int = BATCH, width: int = WIDTH, seed: int = 0, **fields: Any) -> Objective:
    made = build_objective(WMseSpec.model_validate({"name": "w_mse", **fields}))
    made.begin(Run(batch, width, epochs=1, seed=seed, device=torch.device("cpu"), dtype=torch.float64))
    return made


def terms(z_a: Tensor, z_b: Tensor, *, step: int | None = None, **fields: Any) -> Terms:
    made = objective(len(z_a), z_a.shape[1], **fields)
    if step is not None:
        made.before_step(step, torch.arange(len(z_a)))
    return made(z_a, z_b)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stated(z_a: Tensor, z_b: Tensor, size: int, shrinkage: float) -> Tensor:
    """The loss of the rows as they come, sub-batch after sub-batch, by the inverse of the factor."""
    losses = []
    for a, b in zip(z_a.split(size), z_b.split(size), strict=True):
        rows = []
        for z in (a, b):
            covariance = (1 - shrinkage) * torch.cov(z.mT) + shrinkage * torch.eye(z.shape[1], dtype=z.dtype)
            whitened = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).mT
            rows.append(whitened / whitened.norm(dim=1, keepdim=True))
        losses.append((rows[0] - rows[1]).square().sum(1).mean())
    return torch.stack(losses).mean()


def test_cholesky_s_factor_worked_by_hand() -> None:
    """Of rows whose covariance is [[4, 2], [2, 3]]: its factor's inverse is [[.5, 0], [-.3535534, .7071068]]."""
    white = drawn(0, 8, 2)
    white = (white - white.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.mT))).mT
    rows = white @ torch.linalg.cholesky(torch.tensor([[4.0, 2.0], [2.0, 3.0]], dtype=torch.float64)).mT
    right = rows @ torch.tensor([[0.5, 0.0], [-(0.125**0.5), 0.5**0.5]], dtype=torch.float64).mT
    whitened, singular = whiten(rows[None] + 5, 0.0)
    torch.testing.assert_close(whitened[0], right)
    torch.testing.assert_close(torch.cov(whitened[0].mT), torch.eye(2, dtype=torch.float64))
    assert not singular.any()


def test_views_that_are_alike_orthogonal_and_opposite_have_0_2_and_4() -> None:
    """Of four rows at the corners of a square, which are white: by turns of none, a quarter and a half."""
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    turned = torch.stack([-square[:, 1], square[:, 0]], 1)
    found = [terms(square, other, sub_batch=4).loss.item() for other in (square, turned, -square)]
    assert found == pytest.approx([0, 2, 4], abs=1e-12)


@few
@given(seed=st.integers(0, 10_000), shrinkage=st.sampled_from([0.0, 0.1]), size=st.sampled_from([4, 6, 12]))
def test_loss_and_gradient_are_those_of_its_statement(seed: int, shrinkage: float, size: int) -> None:
    """Of both views: code that detaches one of them gives it no gradient."""
    views = (3 + drawn(seed, 2, BATCH, WIDTH)).requires_grad_()
    right = stated(*views, size, shrinkage)
    (expected,) = torch.autograd.grad(right, views)
    found = terms(*views, sub_batch=size, shrinkage=shrinkage)
    (gradient,) = torch.autograd.grad(3 * found.loss, views)
    torch.testing.assert_close(found.loss, right, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, 3 * expected, rtol=1e-7, atol=1e-10)
    assert gradient.abs().amax((1, 2)).min() > 0
    assert found.parts["singular_covariances"] == 0


@few
@given(seed=st.integers(0, 10_000))
def test_what_changes_nothing(seed: int) -> None:
    """Another affine map of each view whose matrix is lower triangular: so the factor takes it back. One that mixes a
    feature into an earlier one is not taken back, as Cholesky's factor depends on the order of features."""
    a, b = drawn(seed, 2, BATCH, 3)
    maps = drawn(seed + 1, 2, 3, 3).tril()
    maps.diagonal(dim1=1, dim2=2).abs_().add_(0.5)
    loss = terms(a, b, sub_batch=6).loss
    mapped = terms(a @ maps[0].mT + 3, b @ maps[1].mT - 1, sub_batch=6).loss
    torch.testing.assert_close(mapped, loss, rtol=1e-8, atol=1e-10)
    assert (terms(a, b.flip(1), sub_batch=6).loss - loss).abs() > 1e-6


def test_sub_batches_are_drawn_by_seed_and_step_from_the_places_of_images() -> None:
    a, b = drawn(3, 2, BATCH, WIDTH)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(1))
    losses = {}
    for seed, step in ((0, 1), (0, 2), (1, 1)):
        made = objective(seed=seed)
        made.before_step(step, torch.arange(BATCH) * 7)
        losses[seed, step] = made(a, b).loss
        made.before_step(step, order * 7)  # the same images in other rows
        torch.testing.assert_close(made(a[order], b[order]).loss, losses[seed, step])
    assert len({round(loss.item(), 9) for loss in losses.values()}) == 3
    several = objective(iterations=3)
    several.before_step(1, torch.arange(BATCH))
    each = []
    for sub_batches in several._orders:  # type: ignore[attr-defined]
        each.append(stated(a[sub_batches], b[sub_batches], 4, 0.0))
    torch.testing.assert_close(several(a, b).loss, torch.stack(each).mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("broken", ["constant", "duplicate", "collapsed"])
def test_a_singular_covariance_is_remedied_counted_and_told(broken: str, dtype: torch.dtype) -> None:
    views = drawn(4, 2, BATCH, 3).to(dtype)
    if broken == "collapsed":
        views[0] = 0.7  # whose mean is rounded
    else:
        views[0, :, 1] = 0.7 if broken == "constant" else views[0, :, 0]
    views.requires_grad_()
    made = objective(width=3, sub_batch=6)
    found = made(views[0], views[1])
    (gradient,) = torch.autograd.grad(found.loss, views)
    assert found.loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 100
    assert broken != "collapsed" or gradient.abs().max() == 0
    assert found.parts["singular_covariances"] == 2  # view a of both sub-batches
    made.after_step(torch.tensor(True))
    made.after_step(torch.tensor(False))
    other = objective(width=3, sub_batch=6)
    other.load_state_dict(made.state_dict())
    assert other(views[1], views[1]).parts["singular_covariances"] == 2
    said = made.concern({"singular_covariances": 2.0})
    assert said is not None
    assert f"whitened with {REMEDY:g} of its mean variance added" in said
    assert made.concern({"singular_covariances": 0.0}) is None


def test_the_remedied_gradient_is_that_of_the_remedied_loss() -> None:
    views = drawn(4, 2, 6, 3)
    views[0, :, 1] = views[0, :, 0]
    moves = drawn(5, 2, 6, 3)
    moves[0, :, 1] = moves[0, :, 0]  # it stays singular
    leaf = views.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(terms(leaf[0], leaf[1], sub_batch=6).loss, leaf)
    ahead, behind = (terms(*(views + step * moves), sub_batch=6).loss for step in (1e-6, -1e-6))
    assert ((ahead - behind) / 2e-6).item() == pytest.approx((gradient * moves).sum().item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_16_bits_are_computed_in_32_and_the_gradient_comes_back_in_its_own(dtype: torch.dtype) -> None:
    views = drawn(3, 2, 16, 4).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = terms(views[0], views[1]).loss
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, views)
    assert gradient.dtype == dtype
    assert loss.item() == pytest.approx(stated(*views.detach().double(), 8, 0.0).item(), rel=1e-4)


@pytest.mark.parametrize(("a", "b"), [((4, 2), (4, 3)), ((4, 2), (3, 2)), ((4,), (4,)), ((1, 2), (1, 2))])
def test_what_has_no_sub_batches_is_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two \(n, d\) embeddings|at least 2 samples"):
        build_objective(WMseSpec(name="w_mse"))(torch.zeros(a), torch.zeros(b))


@pytest.mark.parametrize(("samples", "features"), [(1024, 64), (256, 64), (512, 256)])
def test_no_more_numbers_are_held_than_the_planner_says(samples: int, features: int) -> None:
    """Beside the embeddings and their gradient, there and back."""
    views = drawn(6, 2, samples, features).requires_grad_()
    z_a, z_b = views.unbind()
    made = objective(samples, features)
    made.before_step(1, torch.arange(samples))
    held = bytes_held(lambda: torch.autograd.grad(made(z_a, z_b).loss, views)) / 8
    said = made.spec.numbers_held(samples=samples, features=features, ranks=1)
    assert 0.6 * said < held - 2 * samples * features < said
