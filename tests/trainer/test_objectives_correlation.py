"""The cross-correlation matrix and the Barlow Twins loss, by their laws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.objectives.barlow_twins import barlow_twins, noise_floor
from trainer.objectives.correlation import cross_correlation


def _views(seed: int, samples: int = 12, features: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, samples, features)
    a, b = torch.randn(shape, generator=generator, dtype=torch.float64)
    return a, b


def test_a_small_case_worked_by_hand():
    # Columns of a: (1, 2, 3) and (1, 0, 1); of b: (3, 2, 1) and (0, 0, 3). Centred: (-1, 0, 1), (1, -2, 1)/3,
    # (1, 0, -1), (-1, -1, 2). Norms: sqrt 2, sqrt(2/3), sqrt 2, sqrt 6.
    a = torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]])
    b = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 3.0]])
    expected = torch.tensor([[-1.0, 3 / math.sqrt(12)], [0.0, 0.5]])
    torch.testing.assert_close(cross_correlation(a, b), expected)
    terms = barlow_twins(a, b, lambda_=0.1)
    assert terms.on_diagonal.item() == pytest.approx(4 + 0.25)
    assert terms.off_diagonal.item() == pytest.approx(0.75)
    assert terms.loss.item() == pytest.approx(4.25 + 0.075)
    assert terms.noise_floor == pytest.approx(2 * 1 / 2)
    assert terms.off_diagonal_excess.item() == pytest.approx(0.1 * (0.75 - 1))
    assert terms.correlation_diagonal_mean.item() == pytest.approx(-0.25)
    assert terms.correlation_off_diagonal_rms.item() == pytest.approx(math.sqrt(0.375))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_identical_views_correlate_with_one_on_the_diagonal(seed: int):
    a, _ = _views(seed)
    torch.testing.assert_close(
        cross_correlation(a, a).diagonal(), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-14
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_an_affine_map_per_feature_changes_nothing(seed: int, scale: float, shift: float):
    a, b = _views(seed)
    scales = scale * torch.linspace(0.5, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(cross_correlation(a * scales + shift, b), cross_correlation(a, b), rtol=0, atol=1e-8)
    # Each view has its own statistics: mapping one view only is no different.
    torch.testing.assert_close(cross_correlation(a, b * scales - shift), cross_correlation(a, b), rtol=0, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_permutations_of_samples_and_features(seed: int, data: st.DataObject):
    a, b = _views(seed)
    samples = data.draw(st.permutations(range(12)))
    features = data.draw(st.permutations(range(5)))
    expected = cross_correlation(a, b)
    torch.testing.assert_close(cross_correlation(a[samples], b[samples]), expected)
    torch.testing.assert_close(cross_correlation(a[:, features], b[:, features]), expected[features][:, features])
    torch.testing.assert_close(cross_correlation(b, a), expected.mT)


def test_gradient_of_the_loss_is_that_of_finite_differences():
    a, b = (view.requires_grad_() for view in _views(3))
    assert torch.autograd.gradcheck(lambda x, y: barlow_twins(x, y, 0.0051).loss, (a, b))
    # Far from the origin the constant means must not matter either.
    far = (a.detach() + 100).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: barlow_twins(x, b.detach(), 0.0051).loss, (far,))


def test_noise_floor_is_the_mean_over_independent_features():
    generator = torch.Generator().manual_seed(0)
    samples, features = 32, 24
    trials = [
        barlow_twins(*torch.randn(2, samples, features, generator=generator), lambda_=1.0).off_diagonal.item()
        for _ in range(200)
    ]
    # One trial has a relative spread of about sqrt(2 / d^2): 6 %; the mean of 200 has 0.4 %.
    assert sum(trials) / len(trials) == pytest.approx(noise_floor(features, samples), rel=0.02)


@pytest.mark.parametrize("constant", [0.0, 1.0, 1234.567])
def test_a_feature_that_does_not_vary_correlates_with_nothing_and_stays_finite(constant: float):
    a, b = (view.float().clone() for view in _views(1))
    a[:, 2] = constant
    a.requires_grad_()
    terms = barlow_twins(a, b, 0.0051)
    terms.loss.backward()
    assert not terms.correlation[2].any()
    assert terms.correlation[:2].any()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert not a.grad[:, 2].any()


def test_half_precision_embeddings_are_correlated_in_float32_also_under_autocast():
    a, b = (view.bfloat16() for view in _views(5, samples=64, features=16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        matrix = cross_correlation(a, b)
    assert matrix.dtype == torch.float32
    torch.testing.assert_close(matrix, cross_correlation(a.double(), b.double()).float(), rtol=0, atol=1e-6)


def test_wrong_shapes_and_a_single_sample_are_refused():
    with pytest.raises(ValueError, match="embeddings are needed"):
        cross_correlation(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="raise batch_size"):
        cross_correlation(torch.zeros(1, 3), torch.zeros(1, 3))
