"""NT-Xent and InfoNCE by cases worked by hand, by their statement in plain autograd, by their laws; what they hold."""

import math
from typing import Any

import pytest
import torch
from held_numbers import bytes_held
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from barlow_lab.specs import PretrainSpec
from barlow_lab.specs.objectives import ObjectiveBase, contrast
from trainer.objectives.base import Terms, build_objective

SIDES = torch.eye(4, dtype=torch.float64)
SWAPPED = torch.eye(2, dtype=torch.float64)
ALIKE = torch.ones(4, 2, dtype=torch.float64)
FORMS: list[dict[str, Any]] = [
    {"name": "nt_xent"},
    {"name": "infonce"},
    {"name": "infonce", "positive_in_sum": True},
]
few = settings(max_examples=12, deadline=None)
forms = pytest.mark.parametrize("form", FORMS, ids=["nt_xent", "decoupled", "positive"])


def spec(**objective: Any) -> ObjectiveBase:
    return PretrainSpec.model_validate({"data": "digits", "objective": objective}).objective


def terms(z_a: Tensor, z_b: Tensor, **objective: Any) -> Terms:
    return build_objective(spec(**objective))(z_a, z_b)


def stated(z_a: Tensor, z_b: Tensor, of: Any) -> Tensor:
    """The loss as it is written down, with all cosines at once."""
    a, b = F.normalize(z_a), F.normalize(z_b)
    rows = torch.arange(len(a))
    if of.name == "nt_xent":
        cosines = torch.cat([a, b]) @ torch.cat([a, b]).mT / of.temperature
        cosines = cosines.masked_fill(torch.eye(2 * len(a), dtype=torch.bool), -torch.inf)
        return F.cross_entropy(cosines, torch.cat([rows + len(a), rows]))
    cosines = a @ b.mT / of.temperature
    if of.positive_in_sum:
        return F.cross_entropy(cosines, rows)
    others = cosines.masked_fill(torch.eye(len(a), dtype=torch.bool), -torch.inf)
    return (others.logsumexp(1) - cosines.diagonal()).mean()


@pytest.mark.parametrize(
    ("z_a", "z_b", "objective", "loss"),
    [
        (SIDES, SIDES, {"name": "nt_xent", "temperature": 0.5}, 0.5944377),
        (SIDES, SIDES, {"name": "nt_xent", "temperature": 0.1}, 2.7236e-4),
        (ALIKE, ALIKE, {"name": "nt_xent", "temperature": 0.5}, 1.9459101),
        (SWAPPED, SWAPPED.flip(0), {"name": "nt_xent", "temperature": 1}, 1.5514447),
        (SIDES, SIDES, {"name": "infonce"}, 0.3944492 / 4),
        (ALIKE, ALIKE, {"name": "infonce"}, 4.3944492 / 4),
        (SIDES, SIDES, {"name": "infonce", "temperature": 0.1}, -8.9013877),
        (SWAPPED, SWAPPED.flip(0), {"name": "infonce"}, 2 / 2),
        (SIDES, SIDES, {"name": "infonce", "positive_in_sum": True}, 0.7436684),
    ],
)
def test_cases_worked_by_hand(z_a: Tensor, z_b: Tensor, objective: dict[str, Any], loss: float) -> None:
    """Of the decoupled form the paper's sum over the batch, by its images."""
    assert terms(z_a, z_b, **objective).loss.item() == pytest.approx(loss, rel=1e-5, abs=1e-7)


@few
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.05, 3), rows=st.integers(2, 9), block=st.integers(1, 40))
@forms
def test_loss_and_gradient_are_those_of_its_statement(
    form: dict[str, Any], seed: int, temperature: float, rows: int, block: int
) -> None:
    """With the cosines of all rows at once, and of a few at a time."""
    of = spec(**form, temperature=temperature)
    views = torch.randn(2, rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    views.requires_grad_()
    right = stated(views[0], views[1], of)
    (expected,) = torch.autograd.grad(right, views)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "BLOCK", block)
        loss = build_objective(of)(views[0], views[1]).loss
    (found,) = torch.autograd.grad(3 * loss, views)
    torch.testing.assert_close(loss, right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, 3 * expected, rtol=1e-9, atol=1e-12)


@few
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.05, 3))
@forms
def test_what_changes_nothing(form: dict[str, Any], seed: int, temperature: float) -> None:
    """The order of images, the length of each row, a rotation of both views; of NT-Xent also which view is which."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    order = torch.randperm(7, generator=generator)
    lengths = torch.rand(2, 7, 1, generator=generator, dtype=torch.float64) + 0.1
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    loss = terms(a, b, **form, temperature=temperature).loss
    same = [(a[order], b[order]), (a * lengths[0], b * lengths[1]), (a @ rotation, b @ rotation)]
    for z_a, z_b in same + [(b, a)] * (form["name"] == "nt_xent"):
        torch.testing.assert_close(terms(z_a, z_b, **form, temperature=temperature).loss, loss, rtol=1e-10, atol=1e-12)


@forms
def test_the_parts_are_cosines_and_how_often_a_view_finds_its_other(form: dict[str, Any]) -> None:
    a, b = SIDES, SIDES.clone()
    b[0] = SIDES[1] + 2 * SIDES[0]  # the cosine with its own is 2 / sqrt(5), and with the next 1 / sqrt(5)
    b[1] = SIDES[2]
    found = terms(a, b, **form)
    sides = 2 if form["name"] == "nt_xent" else 1
    # Of the views a 0, 2 and 3 would find theirs, but that of 2 is met by b_1 as well.
    of_a, of_b = 2, 2
    assert {name: part.item() for name, part in found.parts.items()} == pytest.approx(
        {"positive_cosine": (2 / 5**0.5 + 0 + 1 + 1) / 4, "positives_top1": 25 * (of_a + of_b * (sides - 1)) / sides}
    )
    assert not any(part.requires_grad for part in found.parts.values())
    assert not found.known


@forms
def test_large_cosines_by_a_small_temperature_stay_finite(form: dict[str, Any]) -> None:
    views = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = terms(views[0], views[1], **form, temperature=1e-3).loss
    (gradient,) = torch.autograd.grad(loss, views)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert loss.item() == pytest.approx(
        stated(*views.detach().double(), spec(**form, temperature=1e-3)).item(), rel=1e-5
    )


@forms
def test_a_row_without_a_direction_passes_no_gradient(form: dict[str, Any]) -> None:
    views = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(2))
    views[0, 3] = 0
    views.requires_grad_()
    (gradient,) = torch.autograd.grad(terms(views[0], views[1], **form).loss, views)
    assert gradient.isfinite().all()
    assert gradient[0, 3].abs().max() == 0
    assert gradient[1, 3].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@forms
def test_16_bits_are_computed_in_32_and_the_gradient_comes_back_in_its_own(
    form: dict[str, Any], dtype: torch.dtype
) -> None:
    views = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = terms(views[0], views[1], **form).loss
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, views)
    assert gradient.dtype == dtype
    assert loss.item() == pytest.approx(stated(*views.detach().double(), spec(**form)).item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [((4, 2), (4, 3)), ((4, 2), (3, 2)), ((4,), (4,)), ((1, 2), (1, 2))])
@forms
def test_what_has_no_other_image_is_refused(form: dict[str, Any], a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two \(n, d\) embeddings|at least 2 samples"):
        terms(torch.zeros(a), torch.zeros(b), **form)


@pytest.mark.parametrize(
    ("form", "collapsed"), [(FORMS[0], math.log(8191)), (FORMS[1], math.log(4095))], ids=["nt_xent", "infonce"]
)
def test_no_more_numbers_are_held_than_the_planner_says(form: dict[str, Any], collapsed: float) -> None:
    """At 4,096 images: no N x N matrix, of 16.8 million numbers, beside the embeddings and their gradient."""
    samples, features = 4096, 16
    views = torch.ones(2, samples, features, requires_grad=True)
    z_a, z_b = views.unbind()
    loss = build_objective(spec(**form))
    found: list[Terms] = []
    held = bytes_held(lambda: found.append(loss(z_a, z_b)))
    assert found[0].loss.item() == pytest.approx(collapsed, rel=1e-6)
    said = spec(**form).numbers_held(samples=samples, features=features, ranks=1)
    gradient = 2 * samples * features
    assert 0.9 * (said + gradient) < held / 4 < 1.01 * (said + gradient)
    assert said < 0.6 * samples**2
