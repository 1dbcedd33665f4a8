"""The SimSiam loss by cases worked by hand, by its statement in plain autograd, and by its laws.

Shape suffixes: n images, d features.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from train_states import built, views

from barlow_lab.specs import SimsiamSpec
from trainer.objectives.base import Run, build_objective
from trainer.objectives.simsiam import EPSILON, Simsiam
from trainer.objectives.standardised import standardised

DIAMOND = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
few = settings(max_examples=8, deadline=None)


def made(width: int, dtype: torch.dtype = torch.float64, **fields: Any) -> Simsiam:
    objective = build_objective(SimsiamSpec.model_validate({"name": "simsiam", **fields}))
    assert isinstance(objective, Simsiam)
    objective.begin(Run(8, width, epochs=1, seed=0, device=torch.device("cpu"), dtype=dtype))
    assert objective.parts is not None
    objective.parts.to(dtype).train()
    return objective


def stated(z_a: Tensor, z_b: Tensor, predictor: nn.Module, *, standardise: bool, stop_gradient: bool) -> Tensor:
    """As the paper's algorithm 1 states it, with torch's own batch normalisation at the end of the projector."""
    if standardise:
        z_a, z_b = (F.batch_norm(z, None, None, training=True, eps=EPSILON) for z in (z_a, z_b))
    p_a, p_b = predictor(z_a), predictor(z_b)
    if stop_gradient:
        z_a, z_b = z_a.detach(), z_b.detach()
    return -(F.cosine_similarity(p_a, z_b).mean() + F.cosine_similarity(p_b, z_a).mean()) / 2


def two_views(seed: int, samples: int = 9, features: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 + torch.randn(2, samples, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("z_a", "z_b", "loss", "unit_std"),
    [
        (DIAMOND, DIAMOND, -1.0, 1.0),
        (DIAMOND * 0 + 1, DIAMOND * 0 + 1, -1.0, 0.0),
        (DIAMOND, -DIAMOND, 1.0, 1.0),
        (DIAMOND, DIAMOND.flip(1), 0.0, 1.0),
    ],
    ids=["equal views", "collapsed, at the same value", "opposite", "half of the rows equal, half opposite"],
)
def test_cases_worked_by_hand_with_a_predictor_that_changes_nothing(
    z_a: Tensor, z_b: Tensor, loss: float, unit_std: float
) -> None:
    objective = made(2, standardise=False)
    objective.parts = nn.ModuleDict({"predictor": nn.Identity()})
    terms = objective(z_a, z_b)
    assert terms.loss.item() == pytest.approx(loss, abs=1e-12)
    assert terms.parts["unit_std"].item() == pytest.approx(unit_std, abs=1e-7)
    assert not terms.parts["unit_std"].requires_grad


def test_directions_spread_over_the_sphere_deviate_by_one_over_the_root_of_d() -> None:
    """What the paper's figure 2 draws at 1 / sqrt(d) is 1 here."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 4096, 64, generator=generator, dtype=torch.float64)
    assert made(64)(a, b).parts["unit_std"].item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("stop_gradient", [True, False])
@few
@given(seed=st.integers(0, 10_000))
def test_loss_and_gradients_are_those_of_its_statement(standardise: bool, stop_gradient: bool, seed: int) -> None:
    objective = made(8, standardise=standardise, stop_gradient=stop_gradient)
    predictor = copy.deepcopy(objective.parts["predictor"])
    both = two_views(seed).requires_grad_()
    right = stated(*both, predictor, standardise=standardise, stop_gradient=stop_gradient)
    expected = torch.autograd.grad(right, [both, *predictor.parameters()])
    loss = objective(*both).loss
    found = torch.autograd.grad(3 * loss, [both, *objective.parts.parameters()])
    torch.testing.assert_close(loss, right, rtol=1e-10, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, 3 * other, rtol=1e-8, atol=1e-11)
    for one, other in zip(objective.parts.buffers(), predictor.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@few
@given(seed=st.integers(0, 10_000), data=st.data())
def test_neither_order_nor_exchange_of_views_nor_length_of_rows_matters(seed: int, data: st.DataObject) -> None:
    objective, bare = made(8), made(8, standardise=False)
    a, b = two_views(seed)
    rows = data.draw(st.permutations(range(len(a))))
    assert objective(a[rows], b[rows]).loss.item() == pytest.approx(objective(a, b).loss.item(), abs=1e-12)
    assert objective(b, a).loss.item() == pytest.approx(objective(a, b).loss.item(), abs=1e-12)
    # A target counts by its direction alone: with the predictor's part held, that is a law of the bare form.
    bare.parts = nn.ModuleDict({"predictor": nn.Identity()})
    lengths = torch.linspace(0.1, 7, len(a), dtype=torch.float64)[:, None]
    assert bare(lengths * a, b / lengths).loss.item() == pytest.approx(bare(a, b).loss.item(), abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.5])
def test_standardised_features_and_gradient_are_those_of_batch_normalisation(epsilon: float) -> None:
    both = two_views(1).requires_grad_()
    weights = torch.randn(both.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    right = torch.stack([(z - z.mean(0)) / (z.var(0, correction=0) + epsilon).sqrt() for z in both])
    (expected,) = torch.autograd.grad((right * weights).sum(), both)
    out = standardised(*both, epsilon)
    (found,) = torch.autograd.grad((out * weights).sum(), both)
    torch.testing.assert_close(out, right, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_constant_feature_passes_no_gradient_and_stays_finite() -> None:
    both = two_views(1).clone()
    both[0, :, 2] = 1234.567
    both.requires_grad_()
    out = standardised(*both)
    (gradient,) = torch.autograd.grad(out.square().sum() + out.sum(), both)
    assert not out[0, :, 2].any()
    assert not gradient[0, :, 2].any()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_16_bits_are_computed_in_32_and_the_gradient_comes_back_in_its_own(dtype: torch.dtype) -> None:
    for standardise in (True, False):
        both = two_views(3, 16).to(dtype).requires_grad_()
        objective = made(8, torch.float32, standardise=standardise)
        predictor = copy.deepcopy(objective.parts["predictor"]).double()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective(*both).loss
        assert loss.dtype == torch.float32
        (gradient,) = torch.autograd.grad(loss, both)
        assert gradient.dtype == dtype
        right = stated(*both.detach().double(), predictor, standardise=standardise, stop_gradient=True)
        assert loss.item() == pytest.approx(right.item(), rel=1e-4, abs=1e-5)


def test_pieces_are_standardised_and_predicted_as_one_batch() -> None:
    """From the embeddings on, the step in pieces is the statement of the whole batch."""
    state = built(micro_batch=4, precision="fp64", objective={"name": "simsiam"})
    predictor = copy.deepcopy(state.model["objective"]["predictor"])
    update = state.update(*views(1), 1)
    right = stated(update.z_a_nd, update.z_b_nd, predictor, standardise=True, stop_gradient=True)
    right.backward()
    torch.testing.assert_close(update.terms.loss.detach(), right.detach(), rtol=1e-10, atol=0)
    for found, parameter in zip(state.model["objective"].parameters(), predictor.parameters(), strict=True):
        torch.testing.assert_close(found.grad, parameter.grad, rtol=1e-8, atol=1e-12)


def test_the_predictor_is_as_wide_and_at_the_rate_that_the_spec_says() -> None:
    state = built(objective={"name": "simsiam"})
    hidden = state.model["objective"]["predictor"][0]
    assert (hidden.in_features, hidden.out_features) == (16, 4)
    assert state.groups.counts()["constant_matrices"]["tensors"] == 2
    counted = state._spec.objective.trained_numbers(16)
    assert counted == sum(p.numel() for p in state.model["objective"].parameters())
    state = built(objective={"name": "simsiam", "constant_predictor_rate": False, "predictor_width": 6})
    assert state.model["objective"]["predictor"][0].out_features == 6
    assert state.groups.counts().keys() == {"matrices", "others"}


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(("a", "b"), [((4, 2), (4, 3)), ((4, 2), (3, 2)), ((1, 2), (1, 2))])
def test_what_is_no_pair_of_views_is_refused(a: tuple[int, ...], b: tuple[int, ...], standardise: bool) -> None:
    with pytest.raises(ValueError, match=r"two \(n, d\) embeddings|at least 2 samples"):
        made(2, standardise=standardise)(torch.zeros(a), torch.zeros(b))
