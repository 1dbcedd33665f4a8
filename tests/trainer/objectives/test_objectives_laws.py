"""The Barlow Twins loss, in each of its forms, by its laws.

Shape suffixes: n images, d features.
"""

import math
import re
from pathlib import Path

import pytest
import stated_objective
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F

from barlow_lab.specs.loss_form import LossForm
from trainer.objectives.barlow_twins import barlow_twins
from trainer.objectives.correlation import noise_floor

SAMPLES = 9
FEATURES = 16  # two rows in a shard; the dual form's own side of its line

every_form = pytest.mark.parametrize("form", ["direct", "dual", "sharded"])
few = settings(max_examples=20, deadline=None)


def _views(seed: int, samples: int = SAMPLES, features: int = FEATURES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, samples, features, generator=generator, dtype=torch.float64)
    return a, b


def _same(form: LossForm, views: tuple[torch.Tensor, torch.Tensor], others: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Both pairs of views have the same terms."""
    one, other = (barlow_twins(*pair, 0.0051, form) for pair in (views, others))
    for name in ("loss", "on_diagonal", "off_diagonal", "correlation_diagonal_mean"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-7, atol=1e-10)


@every_form
def test_a_small_case_worked_by_hand(form: LossForm):
    # Columns of a: (1, 2, 3) and (1, 0, 1); of b: (3, 2, 1) and (0, 0, 3). Centred: (-1, 0, 1), (1, -2, 1)/3,
    # (1, 0, -1), (-1, -1, 2). Norms: sqrt 2, sqrt(2/3), sqrt 2, sqrt 6. So C = (-1, 3 / sqrt 12; 0, 1/2).
    a = torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]])
    b = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 3.0]])
    terms = barlow_twins(a, b, 0.1, form)
    assert terms.on_diagonal.item() == pytest.approx(4 + 0.25)
    assert terms.off_diagonal.item() == pytest.approx(0.75)
    assert terms.loss.item() == pytest.approx(4.25 + 0.075)
    assert terms.noise_floor == pytest.approx(2 * 1 / 2)
    assert terms.off_diagonal_excess.item() == pytest.approx(0.1 * (0.75 - 1))
    assert terms.correlation_diagonal_mean.item() == pytest.approx(-0.25)
    assert terms.correlation_off_diagonal_rms.item() == pytest.approx(math.sqrt(0.375))


@every_form
@few
@given(seed=st.integers(0, 10_000))
def test_identical_views_correlate_with_one_on_the_diagonal(form: LossForm, seed: int):
    a, _ = _views(seed)
    terms = barlow_twins(a, a, 0.0051, form)
    assert terms.correlation_diagonal_mean.item() == pytest.approx(1, abs=1e-14)
    assert terms.on_diagonal.item() < 1e-26


@every_form
@few
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_an_affine_map_per_feature_changes_nothing(form: LossForm, seed: int, scale: float, shift: float):
    a, b = _views(seed)
    scales = scale * torch.linspace(0.5, 2, FEATURES, dtype=torch.float64)
    # Each view has its own statistics: mapping one view only is no different.
    _same(form, (a * scales + shift, b), (a, b))
    _same(form, (a, b * scales - shift), (a, b))


@every_form
@few
@given(seed=st.integers(0, 10_000), data=st.data())
def test_permutations_of_samples_and_features_and_an_exchange_of_views(form: LossForm, seed: int, data: st.DataObject):
    a, b = _views(seed)
    samples = data.draw(st.permutations(range(SAMPLES)))
    features = data.draw(st.permutations(range(FEATURES)))
    _same(form, (a[samples], b[samples]), (a, b))
    _same(form, (a[:, features], b[:, features]), (a, b))
    _same(form, (b, a), (a, b))


@every_form
def test_gradient_of_the_loss_is_that_of_finite_differences(form: LossForm):
    a, b = (view.requires_grad_() for view in _views(3))
    assert torch.autograd.gradcheck(lambda x, y: barlow_twins(x, y, 0.0051, form).loss, (a, b))
    # Far from the origin the constant means must not matter either.
    far = (a.detach() + 100).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: 3 * barlow_twins(x, b.detach(), 0.0051, form).loss, (far,))


def test_noise_floor_is_the_mean_over_independent_features():
    generator = torch.Generator().manual_seed(0)
    samples, features = 32, 24
    trials = [
        barlow_twins(*torch.randn(2, samples, features, generator=generator), lambda_=1.0).off_diagonal.item()
        for _ in range(200)
    ]
    # One trial has a relative spread of about sqrt(2 / d^2): 6 %; the mean of 200 has 0.4 %.
    assert sum(trials) / len(trials) == pytest.approx(noise_floor(features, samples), rel=0.02)


@every_form
@pytest.mark.parametrize("constant", [0.0, 1.0, 1234.567])
def test_a_feature_that_does_not_vary_correlates_with_nothing_and_stays_finite(form: LossForm, constant: float):
    a, b = (view.float().clone() for view in _views(1))
    a[:, 2] = constant
    a.requires_grad_()
    b.requires_grad_()
    terms = barlow_twins(a, b, 0.0051, form)
    terms.loss.backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad[:, :2].any()
    for gradient in (a.grad, b.grad):
        assert torch.isfinite(gradient).all()
    assert not a.grad[:, 2].any()
    # It misses 1 on the diagonal, and beside that is as if it were not there.
    others = [i for i in range(FEATURES) if i != 2]
    without = barlow_twins(a.detach()[:, others], b.detach()[:, others], 0.0051, form)
    assert terms.on_diagonal.item() == pytest.approx(without.on_diagonal.item() + 1, rel=1e-5)
    column = stated_objective.correlation(a.detach()[:, others].double(), b.detach()[:, 2:3].double())
    assert terms.off_diagonal.item() == pytest.approx(
        without.off_diagonal.item() + column.square().sum().item(), rel=1e-5
    )


@every_form
def test_half_precision_embeddings_are_correlated_in_float32_also_under_autocast(form: LossForm):
    a, b = (view.bfloat16().requires_grad_() for view in _views(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = barlow_twins(a, b, 0.0051, form)
    terms.loss.backward()
    assert terms.loss.dtype == torch.float32
    expected = barlow_twins(a.detach().double(), b.detach().double(), 0.0051, form)
    assert terms.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    assert a.grad is not None
    assert a.grad.dtype == torch.bfloat16


@every_form
def test_the_host_waits_for_no_value(form: LossForm):
    """Tensors without values: whoever asked for one would be told so."""
    with FakeTensorMode():
        a, b = (torch.empty(SAMPLES, FEATURES, requires_grad=True) for _ in range(2))
        terms = barlow_twins(a, b, 0.0051, form)
        terms.loss.backward()
        assert a.grad is not None
        assert a.grad.shape == a.shape
        with pytest.raises(DataDependentOutputException):
            terms.loss.item()


def test_wrong_shapes_and_a_single_sample_are_refused():
    with pytest.raises(ValueError, match="embeddings are needed"):
        barlow_twins(torch.zeros(4, 3), torch.zeros(4, 2), 0.0051)
    with pytest.raises(ValueError, match="raise batch_size"):
        barlow_twins(torch.zeros(1, 3), torch.zeros(1, 3), 0.0051)


def test_there_is_no_epsilon_and_the_table_of_the_docs_says_what_one_would_do():
    """Equal views at every scale of the table: our C_ii is 1, that of a batch normalisation with 1e-5 the table's."""
    text = (Path(__file__).parents[3] / "docs/objective.md").read_text()
    rows = [
        line.strip("|").split("|")
        for line in text.splitlines()
        if re.match(r"\| [0-9.]+ \| [0-9.]+ \| [0-9.e-]+ \|$", line)
    ]
    assert len(rows) == 7
    z_nd = torch.randn(64, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z_nd = (z_nd - z_nd.mean(0)) / z_nd.std(0, correction=0)
    for scale, diagonal, added in (map(float, row) for row in rows):
        ours = barlow_twins(scale * z_nd, scale * z_nd, lambda_=0.0)
        assert ours.correlation_diagonal_mean.item() == pytest.approx(1, abs=1e-12)
        normalised_nd = F.batch_norm(scale * z_nd, None, None, training=True, eps=1e-5)
        theirs = (normalised_nd.square().sum(0) / len(z_nd)).mean().item()
        assert theirs == pytest.approx(diagonal, rel=2e-3)
        assert (1 - theirs) ** 2 == pytest.approx(added, rel=0.03)
