"""The information bottleneck: known answers, its statement in plain autograd, laws, bounds, singular covariances."""

from __future__ import annotations

import math
from typing import Any

import pytest
import runs
import torch
from held_numbers import bytes_held
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from barlow_lab.specs.objectives.information_bottleneck import InformationBottleneckSpec
from trainer.objectives.base import Run, Terms
from trainer.objectives.information_bottleneck import InformationBottleneck
from trainer.objectives.log_determinants import (
    _cholesky,
    _oracle_approximating_shrinkage,
    bias_of_log_determinant,
    log_determinant,
)
from trainer.pretraining import pretrain

DIAMOND = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
APART = 0.2 * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
TINY = 1e-13
few = settings(max_examples=20, deadline=None)
sizes = pytest.mark.parametrize(("rows", "width"), [(9, 5), (4, 6), (3, 8)], ids=["by features", "mixed", "by samples"])


def spec(**fields: Any) -> InformationBottleneckSpec:
    return InformationBottleneckSpec.model_validate({"name": "information_bottleneck", **fields})


def terms(z_a: Tensor, z_b: Tensor, **fields: Any) -> Terms:
    return InformationBottleneck(spec(**({"beta": 2} | fields if "lambda" not in fields else fields)))(z_a, z_b)


def drawn(seed: int, rows: int, width: int, near: float = 0.5) -> Tensor:
    """Two views, (2, rows, width), which agree the better the smaller `near`."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return 3 + images + near * torch.randn(2, rows, width, generator=generator, dtype=torch.float64)


def oracle_shrinkage(c: Tensor, samples: int) -> float:
    """Chen et al. 2010, equation 23."""
    width, trace, squares = len(c), c.trace().item(), (c @ c).trace().item()
    return min(
        1.0,
        ((1 - 2 / width) * squares + trace**2) / ((samples + 1 - 2 / width) * (squares - trace**2 / width)),
    )


def stated(views: Tensor, of: InformationBottleneckSpec) -> Tensor:
    """The loss by torch's own determinants, on the whole matrices."""
    rows, width = views.shape[1:]
    centred = views - views.mean(1, keepdim=True)
    a, b = centred / centred.square().mean((0, 1)).sqrt()

    def log_det(c: Tensor) -> Tensor:
        rho = oracle_shrinkage(c.detach(), rows) if of.shrinkage == "oas" else 0.0
        identity = torch.eye(width, dtype=c.dtype)
        return torch.logdet((1 - rho) * c + (rho * c.trace() / width + of.floor) * identity)

    conditional = (a - b).mT @ (a - b) / (2 * rows)
    return log_det(conditional) - of.weight * log_det((a.mT @ a + b.mT @ b) / (2 * rows))


def test_the_case_worked_by_hand() -> None:
    """C_Z|X = .04 I and C_Z = 1.02 I before features have variance 1, which takes (1 - lambda) log |diag C_Z| off."""
    found = terms(DIAMOND + APART, DIAMOND - APART, floor=TINY)
    assert found.loss.item() + 0.5 * 2 * math.log(1.02) == pytest.approx(-6.4575543, abs=1e-7)
    parts = {name: value.item() for name, value in found.parts.items()}
    assert parts["mutual_information"] == pytest.approx(3.2386785, abs=1e-7)
    assert parts["conditional_log_det"] == pytest.approx(2 * math.log(0.04 / 1.02))
    assert (parts["log_det"], parts["singular_steps"]) == (pytest.approx(0.0, abs=1e-9), 0)
    assert not found.known
    assert all(not part.requires_grad for part in found.parts.values())


def value_of(c: Tensor, **given: Any) -> float:
    return log_determinant(torch.linalg.cholesky(c).mT, len(c), 1, TINY, samples=None, **given).value.item()


def test_known_answers_of_its_parts() -> None:
    assert value_of(torch.diag(torch.tensor([1.0, 2, 4], dtype=torch.float64))) == pytest.approx(2.0794415)
    assert value_of(torch.tensor([[2.0, 1], [1, 2]], dtype=torch.float64)) == pytest.approx(math.log(3))
    s = torch.diag(torch.tensor([1.0, 2, 4], dtype=torch.float64))
    for samples, rho in ((4, 1.0), (100, 0.11960)):
        found = _oracle_approximating_shrinkage(s.trace(), s.square().sum(), 3, samples)
        assert found.item() == pytest.approx(rho, abs=5e-6)
        assert found.item() == pytest.approx(oracle_shrinkage(s, samples))
    assert _oracle_approximating_shrinkage(torch.tensor(3.0), torch.tensor(3.0), 3, 9) == 1, (
        "a multiple of the identity"
    )
    for width, samples, bias in ((64, 256, -8.947), (64, 1024, -2.077), (128, 256, -39.82), (128, 2048, -4.120)):
        assert bias_of_log_determinant(width, samples) == pytest.approx(bias, rel=2e-4)
    assert bias_of_log_determinant(1, 10) == pytest.approx(-0.11521, abs=5e-6)
    assert bias_of_log_determinant(10, 10) is None
    assert [spec(beta=beta).weight for beta in (1.1, 2, 1e9)] == pytest.approx([0.0909, 0.5, 1.0], abs=1e-4)


@few
@given(
    seed=st.integers(0, 10_000),
    weight=st.floats(0.05, 0.95),
    floor=st.floats(1e-3, 0.5),
    shrinkage=st.sampled_from(["none", "oas"]),
)
@sizes
def test_loss_and_gradient_are_those_of_its_statement(
    rows: int, width: int, seed: int, weight: float, floor: float, shrinkage: str
) -> None:
    of = spec(**{"lambda": weight}, floor=floor, shrinkage=shrinkage)
    views = drawn(seed, rows, width).requires_grad_()
    right = stated(views, of)
    (expected,) = torch.autograd.grad(right, views)
    loss = InformationBottleneck(of)(views[0], views[1]).loss
    (found,) = torch.autograd.grad(3 * loss, views)
    torch.testing.assert_close(loss, right, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found, 3 * expected, rtol=1e-7, atol=1e-8 * expected.abs().max().item())


@few
@given(seed=st.integers(0, 10_000))
@sizes
def test_what_changes_nothing(rows: int, width: int, seed: int) -> None:
    """The order of images and of features, which view is which, the scale of a feature, and a shift of each view."""
    generator = torch.Generator().manual_seed(seed)
    a, b = drawn(seed, rows, width)
    loss = terms(a, b).loss
    order, features = torch.randperm(rows, generator=generator), torch.randperm(width, generator=generator)
    scale = torch.rand(width, generator=generator, dtype=torch.float64) + 0.1
    shift = torch.randn(2, width, generator=generator, dtype=torch.float64)
    for z_a, z_b in (
        (a[order], b[order]), (a[:, features], b[:, features]), (b, a), (a * scale, b * scale),
        (a + shift[0], b + shift[1]),
    ):  # fmt: skip
        torch.testing.assert_close(terms(z_a, z_b).loss, loss, rtol=1e-9, atol=1e-9)


@few
@given(seed=st.integers(0, 10_000), near=st.floats(0, 2), weight=st.floats(0.05, 0.95), floor=st.floats(1e-3, 0.5))
@sizes
def test_it_is_bounded_below_and_above(
    rows: int, width: int, seed: int, near: float, weight: float, floor: float
) -> None:
    """Which as written in the paper it is not: views that agree, or are smaller, have no least value."""
    loss = terms(*drawn(seed, rows, width, near), **{"lambda": weight}, floor=floor).loss.item()
    least = width * math.log(floor) - weight * width * math.log1p(floor)
    most = width * math.log(2 + floor) - weight * ((width - 1) * math.log(floor) + math.log(width + floor))
    assert least - 1e-9 <= loss <= most + 1e-9


@pytest.mark.parametrize(("weight", "change"), [(0.5, -4.605), (1.0, 0.0), (1.5, 4.605)])
def test_as_written_a_smaller_embedding_changes_it_without_end(weight: float, change: float) -> None:
    """Of d = 2 and embeddings a tenth as wide: d (1 - lambda) log s^2, worked by hand. Here it changes nothing."""

    def as_written(z_a: Tensor, z_b: Tensor) -> float:
        both = (z_a - z_b).mT @ (z_a - z_b) / 8, (z_a.mT @ z_a + z_b.mT @ z_b) / 8
        return (torch.logdet(both[0]) - weight * torch.logdet(both[1])).item()

    a, b = DIAMOND + APART, DIAMOND - APART
    assert as_written(0.1 * a, 0.1 * b) - as_written(a, b) == pytest.approx(change, abs=1e-3)
    assert terms(0.1 * a, 0.1 * b).loss.item() == pytest.approx(terms(a, b).loss.item())


def one_direction(weight: float, correlation: float, alive: bool) -> float:
    """The loss of two directions, of which the second has this correlation between views, or is none."""
    rows = torch.linalg.qr(torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    rows = torch.linalg.qr(rows - rows.mean(0))[0]
    apart = math.sqrt((1 - correlation) / (1 + correlation))
    a, b = (torch.stack([rows[:, 0], rows[:, 1] + sign * apart * rows[:, 2]], 1) for sign in (1, -1))
    if not alive:
        a, b = a * torch.tensor([1.0, 0.0]), b * torch.tensor([1.0, 0.0])
    return terms(a, b, **{"lambda": weight}).loss.item()


@pytest.mark.parametrize("weight", [0.5, 0.9, 0.99])
def test_a_direction_is_given_up_below_the_correlation_that_the_docs_say(weight: float) -> None:
    """1 - eps^(1 - lambda): 0.97, 0.50 and 0.07 at the default floor."""
    least = 1 - 1e-3 ** (1 - weight)
    assert round(least, 2) == {0.5: 0.97, 0.9: 0.5, 0.99: 0.07}[weight]
    for correlation, better in ((least + 0.01, True), (least - 0.01, False)):
        assert (one_direction(weight, correlation, True) < one_direction(weight, correlation, False)) == better


def test_views_that_agree_reach_the_least_value_where_features_are_independent() -> None:
    loss = terms(DIAMOND, DIAMOND, floor=0.01).loss.item()
    assert loss == pytest.approx(2 * math.log(0.01) - 0.5 * 2 * math.log(1.01))


@pytest.mark.parametrize(
    ("views", "directions"),
    [
        (torch.stack([DIAMOND[:, :1], DIAMOND[:, :1]]).expand(2, 4, 3), 2),
        (torch.stack([DIAMOND, DIAMOND]) * torch.tensor([1.0, 0.0]), 1),
        (torch.full((2, 4, 3), 0.7, dtype=torch.float64), 3),
        (drawn(1, 3, 9), 5),
    ],
    ids=["one feature three times", "a constant feature", "collapsed", "fewer samples than features"],
)
def test_a_singular_covariance_is_counted_and_has_a_finite_gradient(views: Tensor, directions: int) -> None:
    objective = InformationBottleneck(spec(floor=1e-3))
    views = views.clone().requires_grad_()
    for steps in (1, 2):
        found = objective(views[0], views[1])
        (gradient,) = torch.autograd.grad(found.loss, views)
        assert gradient.isfinite().all()
        assert found.parts["at_floor"].item() == pytest.approx(directions, abs=0.02)
        assert found.parts["singular_steps"] == steps
        objective.after_step(torch.tensor(True))
    objective.after_step(torch.tensor(False))
    assert objective.state_dict()["singular_steps"] == 2, "a skipped step is none"


def test_where_rounding_leaves_no_factor_the_diagonal_stands_for_the_matrix() -> None:
    broken = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    factor, failed = _cholesky(broken)
    assert failed
    torch.testing.assert_close(factor, torch.eye(2, dtype=torch.float64))
    whole = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    factor, failed = _cholesky(whole)
    assert not failed
    torch.testing.assert_close(factor @ factor.mT, whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_16_bits_are_computed_in_32_and_the_gradient_comes_back_in_its_own(dtype: torch.dtype) -> None:
    views = drawn(3, 64, 8).to(dtype).requires_grad_()
    loss = terms(views[0], views[1]).loss
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, views)
    assert gradient.dtype == dtype
    assert loss.item() == pytest.approx(stated(views.detach().double(), spec(beta=2)).item(), rel=1e-5)


def test_float32_at_the_least_floor_is_that_of_float64() -> None:
    """Of views that agree to a thousandth, whose own covariance is far below the floor."""
    least = InformationBottleneckSpec.least_floor(48)
    views = drawn(5, 200, 48, near=1e-3)
    rounded = views.float()
    found = terms(rounded[0], rounded[1], floor=least)
    assert found.loss.item() == pytest.approx(stated(rounded.double(), spec(beta=2, floor=least)).item(), rel=1e-3)
    assert found.parts["singular_steps"] == 0


@pytest.mark.parametrize(("samples", "features"), [(1024, 64), (512, 512), (64, 512)])
def test_no_more_numbers_are_held_than_the_planner_says(samples: int, features: int) -> None:
    """Beside the embeddings and their gradient, there and back."""
    views = drawn(6, samples, features).float().requires_grad_()
    z_a, z_b = views.unbind()
    held = bytes_held(lambda: torch.autograd.grad(terms(z_a, z_b).loss, views)) / 4
    said = spec().numbers_held(samples=samples, features=features, ranks=1)
    assert 0.6 * said < held - 2 * samples * features < said


def test_what_a_batch_is_too_small_for_is_said() -> None:
    def said(images: int, width: int) -> str | None:
        objective = InformationBottleneck(spec())
        objective.begin(Run(images, width, 1, 0, torch.device("cpu"), torch.float32))
        return objective.concern({})

    assert said(256, 64) is None
    assert "lie low: by 39.8 nats where 256 samples are normal" in (said(256, 128) or "")
    assert "rank 63 (of two views of an image) and 126 (of all) at most" in (said(64, 128) or "")


def test_a_run_says_that_a_covariance_is_singular_counts_it_goes_on_and_learns(tmp_path: Any) -> None:
    rate = {"name": "adamw", "learning_rate": 1e-2, "reference_batch_size": None, "warmup_epochs": 0}
    of = {"name": "information_bottleneck"}
    spec = runs.spec(objective=of, projector={"widths": [8, 16]}, epochs=2, optimizer=rate)
    assert pretrain(spec, runs.context(tmp_path)).outcome == "ok"
    points = runs.series(tmp_path)
    assert points["loss", 10] < points["loss", 1]
    assert points["singular_steps", 10] == 10
    warnings = [e.data["message"] for e in runs.events(tmp_path, kind="warning") if "covariance" in e.data["message"]]
    (said,) = warnings
    assert "covariances of 16 features from 32 images have log-determinants that lie low" in said
    assert "the covariance of the embeddings was singular" in said
    records = [event.data for event in runs.events(tmp_path, kind="correlation")]
    assert all("off_diagonal_excess" not in record["summary"] for record in records)
