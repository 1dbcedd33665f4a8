"""What the Barlow Twins paper's ablations vary: cases worked by hand, the statement in plain autograd, and laws.

Shape suffixes: n images, d features.
"""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import stated_objective
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from train_states import built, views

from barlow_lab.specs import BarlowTwinsSpec
from trainer.objectives.barlow_twins import BarlowTwins, barlow_twins
from trainer.objectives.base import Run, build_objective
from trainer.objectives.correlation import noise_floor

DIAMOND = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
TWICE = DIAMOND[:, [0, 0]]
LOGS = {"loss": "cross_entropy", "temperature": 1.0, "lambda": 1.0}
few = settings(max_examples=10, deadline=None)


def spec(**fields: Any) -> BarlowTwinsSpec:
    made = BarlowTwinsSpec.model_validate(fields)
    assert made.faults(batch_size=9, width=16) == {}
    return made


def objective(width: int = 16, dtype: torch.dtype = torch.float64, **fields: Any) -> BarlowTwins:
    made = build_objective(spec(**fields))
    assert isinstance(made, BarlowTwins)
    made.begin(Run(9, width, epochs=1, seed=0, device=torch.device("cpu"), dtype=dtype))
    if made.parts is not None:
        made.parts.to(dtype).train()
    return made


def loss(z_a: Tensor, z_b: Tensor, **fields: Any) -> float:
    return objective(z_a.shape[1], **fields)(z_a, z_b).loss.item()


def two_views(seed: int = 0, samples: int = 9, features: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 + torch.randn(2, samples, features, generator=generator, dtype=torch.float64)


def combinations() -> list[dict[str, Any]]:
    """Every one that is not refused, the default among them."""
    fields = {
        "normalisation": ["pearson", "none", "feature"],
        "redundancy": ["cross", "auto", "auto_a"],
        "terms": ["both", "on_diagonal", "off_diagonal"],
        "loss": ["squares", "cross_entropy"],
    }
    asked = [dict(zip(fields, values, strict=True)) for values in product(*fields.values())]
    asked = [one | ({"temperature": 0.4} if one["loss"] == "cross_entropy" else {}) for one in asked]
    return [one for one in asked if not BarlowTwinsSpec.model_validate(one).faults(batch_size=9, width=16)]


@pytest.mark.parametrize(
    ("z_a", "z_b", "fields", "expected"),
    [
        (DIAMOND, DIAMOND, {}, 0.0),
        (DIAMOND, DIAMOND.flip(1), {}, 2.0102),
        (DIAMOND, -DIAMOND, {}, 8.0),
        (DIAMOND, TWICE, {}, 1.0051),
        (TWICE, TWICE, {}, 0.0102),
        (TWICE, TWICE, {"redundancy": "auto"}, 0.0102),
        (DIAMOND, TWICE, {"redundancy": "auto"}, 1.0051),
        (DIAMOND, TWICE, {"redundancy": "auto_a"}, 1.0),
        (DIAMOND, DIAMOND.flip(1), {"terms": "on_diagonal"}, 2.0),
        (DIAMOND, DIAMOND.flip(1), {"terms": "off_diagonal"}, 0.0102),
        (DIAMOND, DIAMOND, {"normalisation": "none"}, 0.0),
        (2 * DIAMOND, 2 * DIAMOND, {"normalisation": "none"}, 18.0),
        (DIAMOND, DIAMOND, {"normalisation": "feature", "factor": 1.0}, 0.5),
        (DIAMOND, DIAMOND, {"normalisation": "feature"}, 0.0),
        (DIAMOND, DIAMOND, LOGS, -1.0),
        (DIAMOND, DIAMOND, {"loss": "cross_entropy", "temperature": 1.0, "terms": "on_diagonal"}, -1.6931471806),
        (*[stated_objective.uncorrelated(8, 4)] * 2, {**LOGS, "temperature": 0.5}, -0.9013877113),
    ],
)
def test_cases_worked_by_hand(z_a: Tensor, z_b: Tensor, fields: dict[str, Any], expected: float) -> None:
    assert loss(z_a, z_b, **fields) == pytest.approx(expected, abs=1e-9)


def test_two_samples_cannot_decorrelate() -> None:
    z = torch.tensor([[0.3, -1.0, 2.0], [1.1, 4.0, -7.0]], dtype=torch.float64)
    assert loss(z, z) == pytest.approx(6 * 0.0051)


def test_without_its_factor_the_feature_variant_cannot_come_near_the_identity() -> None:
    """trace C <= 1, so that the invariance term is d (1 - 1/d)^2 or more."""
    a, _ = two_views(features=64, samples=500)
    least = 64 * (1 - 1 / 64) ** 2
    assert loss(a, a, normalisation="feature", factor=1.0, terms="on_diagonal") == pytest.approx(least, rel=1e-3)
    assert loss(a, a, normalisation="feature", terms="on_diagonal") < 1


@pytest.mark.parametrize("fields", combinations(), ids=lambda fields: "-".join(str(f) for f in fields.values()))
def test_loss_and_gradient_are_those_of_the_statement(fields: dict[str, Any]) -> None:
    both = two_views(3).requires_grad_()
    right = stated_objective.variant(both[0], both[1], spec(**fields))
    (expected,) = torch.autograd.grad(right, both)
    value = objective(**fields)(both[0], both[1]).loss
    (found,) = torch.autograd.grad(3 * value, both)
    torch.testing.assert_close(value, right, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found, 3 * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["direct", "dual", "sharded"])
@pytest.mark.parametrize("redundancy", ["auto", "auto_a"])
def test_the_forms_of_a_view_with_itself_agree(redundancy: str, form: str) -> None:
    both = two_views(4).requires_grad_()
    right = stated_objective.variant(both[0], both[1], spec(redundancy=redundancy))
    (expected,) = torch.autograd.grad(right, both)
    value = objective(redundancy=redundancy, form=form)(both[0], both[1]).loss
    torch.testing.assert_close(value, right, rtol=1e-11, atol=0)
    torch.testing.assert_close(torch.autograd.grad(value, both)[0], expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("fields", [{}, {"normalisation": "none"}, {"normalisation": "feature"}, LOGS])
@pytest.mark.parametrize("symmetry", [{"stop_gradient": True}, {"predictor_width": 5}, "both"])
def test_a_broken_symmetry_has_the_gradient_of_its_statement(fields: dict[str, Any], symmetry: Any) -> None:
    asked = {**fields, **({"stop_gradient": True, "predictor_width": 5} if symmetry == "both" else symmetry)}
    made = objective(**asked)
    predictor = nn.Identity() if made.parts is None else copy.deepcopy(made.parts["predictor"])
    both = two_views(5).requires_grad_()
    right = stated_objective.variant(both[0], both[1], spec(**asked), predictor)
    expected = torch.autograd.grad(right, [both, *predictor.parameters()])
    value = made(both[0], both[1]).loss
    found = torch.autograd.grad(value, [both, *(made.parts or nn.ModuleDict()).parameters()])
    torch.testing.assert_close(value, right, rtol=1e-11, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)
    assert found[0][1].any() != ("stop_gradient" in asked)


@pytest.mark.parametrize("fields", combinations()[::5])
@few
@given(seed=st.integers(0, 10_000), data=st.data())
def test_neither_order_of_samples_nor_of_features_matters(
    fields: dict[str, Any], seed: int, data: st.DataObject
) -> None:
    a, b = two_views(seed)
    rows, features = (data.draw(st.permutations(range(count))) for count in a.shape)
    expected = pytest.approx(loss(a, b, **fields), rel=1e-9, abs=1e-10)
    assert loss(a[rows], b[rows], **fields) == expected
    assert loss(a[:, features], b[:, features], **fields) == expected
    if fields["redundancy"] != "auto_a":
        assert loss(b, a, **fields) == expected


@pytest.mark.parametrize("fields", [{"redundancy": "auto"}, {"normalisation": "feature"}, LOGS])
@few
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-2, 1e2), shift=st.floats(-1e2, 1e2))
def test_an_affine_map_per_feature_changes_nothing_where_features_are_normalised(
    fields: dict[str, Any], seed: int, scale: float, shift: float
) -> None:
    a, b = two_views(seed)
    scales = scale * torch.linspace(0.5, 2, 16, dtype=torch.float64)
    assert loss(a * scales + shift, b, **fields) == pytest.approx(loss(a, b, **fields), rel=1e-7, abs=1e-9)


@few
@given(seed=st.integers(0, 10_000), shift=st.floats(-1e2, 1e2))
def test_without_normalisation_it_is_the_distance_to_the_identity_of_any_basis(seed: int, shift: float) -> None:
    """At lambda 1 that is |C - I|^2, which an orthogonal map of both views leaves; and 1/N is in C: a batch twice over
    is the same batch."""
    a, b = two_views(seed)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    fields = {"normalisation": "none", "lambda": 1.0}
    expected = pytest.approx(loss(a, b, **fields), rel=1e-9)
    assert loss(a @ turn + shift, b @ turn, **fields) == expected
    assert loss(a.repeat(2, 1), b.repeat(2, 1), **fields) == expected
    assert loss(2 * a, b / 2, **fields) == expected


def test_a_constant_feature_passes_no_gradient_and_stays_finite_in_every_variant() -> None:
    for fields in combinations():
        both = two_views(1).clone()
        both[0, :, 2] = 0.0 if fields["normalisation"] == "none" else 1234.567
        both.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(**fields)(both[0], both[1]).loss, both)
        assert gradient.isfinite().all(), fields
        if fields["normalisation"] != "none":
            assert not gradient[0, :, 2].any(), fields


@pytest.mark.parametrize(
    "fields",
    [{"normalisation": "none"}, {"normalisation": "feature"}, {"redundancy": "auto"}, {"predictor_width": 8}, LOGS],
)
def test_16_bits_are_computed_in_32_and_the_gradient_comes_back_in_its_own(fields: dict[str, Any]) -> None:
    both = two_views(6, samples=24).bfloat16().requires_grad_()
    made = objective(dtype=torch.float32, **fields)
    predictor = None if made.parts is None else copy.deepcopy(made.parts["predictor"]).double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = made(both[0], both[1]).loss
    assert value.dtype == torch.float32
    (gradient,) = torch.autograd.grad(value, both)
    assert gradient.dtype == torch.bfloat16
    right = stated_objective.variant(*both.detach().double(), spec(**fields), predictor)
    assert value.item() == pytest.approx(right.item(), rel=1e-5)


def recorded(**fields: Any) -> tuple[list[str], list[str]]:
    terms = objective(**fields)(*two_views())
    return [*terms.parts], [*terms.known]


def test_the_default_is_the_paper_s_equation_with_what_it_always_recorded() -> None:
    both = two_views()
    terms, plain = objective()(*both), barlow_twins(*both, 0.0051)
    assert [*terms.parts] == [
        "on_diagonal", "off_diagonal", "off_diagonal_excess", "correlation_diagonal_mean",
        "correlation_off_diagonal_rms",
    ]  # fmt: skip
    assert all(torch.equal(value, getattr(plain, name)) for name, value in terms.parts.items())
    assert torch.equal(terms.loss, plain.loss)
    assert terms.known == {"noise_floor": noise_floor(16, 9)}
    assert objective().off_diagonal_weight == 0.0051
    assert objective().parts is None


def test_a_variant_names_its_matrix_and_a_floor_stands_where_there_is_one() -> None:
    floor = ["noise_floor"]
    assert recorded(normalisation="none") == (
        ["on_diagonal", "off_diagonal", "covariance_diagonal_mean", "covariance_off_diagonal_rms"],
        [],
    )
    assert recorded(normalisation="feature", terms="off_diagonal") == (
        ["off_diagonal", "unit_covariance_diagonal_mean", "unit_covariance_off_diagonal_rms"],
        [],
    )
    own = "auto_correlation_off_diagonal_rms"
    of_auto = ["on_diagonal", "off_diagonal", "off_diagonal_excess", "correlation_diagonal_mean", own]
    assert recorded(redundancy="auto") == (of_auto, floor)
    assert recorded(terms="on_diagonal") == (["on_diagonal", "correlation_diagonal_mean"], [])
    logs = ["on_diagonal_cross_entropy", "off_diagonal_cross_entropy", "correlation_diagonal_mean"]
    assert recorded(**LOGS) == (logs, [])
    assert recorded(predictor_width=4)[1] == floor


@pytest.mark.parametrize(
    "fields",
    [{"normalisation": "none"}, {"redundancy": "auto"}, {"terms": "on_diagonal"}, {"predictor_width": 4}, LOGS],
)
def test_the_record_of_the_matrix_tells_a_share_of_the_loss_only_where_it_is_one(fields: dict[str, Any]) -> None:
    assert objective(**fields).off_diagonal_weight is None
    assert objective(terms="off_diagonal", stop_gradient=True).off_diagonal_weight == 0.0051


def test_pieces_are_predicted_and_normalised_as_one_batch() -> None:
    asked = {"normalisation": "feature", "predictor_width": 8, "stop_gradient": True}
    state = built(micro_batch=4, precision="fp64", objective=asked)
    predictor = copy.deepcopy(state.model["objective"]["predictor"])
    update = state.update(*views(1), 1)
    right = stated_objective.variant(update.z_a_nd, update.z_b_nd, BarlowTwinsSpec.model_validate(asked), predictor)
    right.backward()
    torch.testing.assert_close(update.terms.loss.detach(), right.detach(), rtol=1e-10, atol=0)
    for found, parameter in zip(state.model["objective"].parameters(), predictor.parameters(), strict=True):
        torch.testing.assert_close(found.grad, parameter.grad, rtol=1e-8, atol=1e-11)
    numbers = sum(p.numel() for p in predictor.parameters())
    assert state._spec.objective.trained_numbers(16) == numbers


def test_the_terms_add_up() -> None:
    """The on-diagonal one is of C whatever the other is of."""
    both = two_views(7)
    for fields in ({}, {"redundancy": "auto"}, {"redundancy": "auto_a"}, LOGS):
        of_off = ("redundancy", "lambda")
        on = loss(*both, **{name: value for name, value in fields.items() if name not in of_off}, terms="on_diagonal")
        off = loss(*both, **fields, terms="off_diagonal")
        assert loss(*both, **fields) == pytest.approx(on + off, rel=1e-12)
