"""The streaming estimate of the population's moments: against NumPy at once, hand-worked cases, and its error.

Shape suffixes: 2 views, n samples, d features.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.evaluation.view_moments import MatrixSums, ViewMoments, matrix_sums, rows_of, scatter

CPU = torch.device("cpu")
D4 = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])


def pair(samples: int, features: int, rho: float = 0.5, seed: int = 0, mean: float = 0.0) -> tuple[Tensor, Tensor]:
    """Two views of independent features, each of which correlates by `rho` with itself."""
    generator = torch.Generator().manual_seed(seed)
    shared, a, b = torch.randn(3, samples, features, generator=generator, dtype=torch.float64)
    return mean + rho**0.5 * shared + (1 - rho) ** 0.5 * a, mean + rho**0.5 * shared + (1 - rho) ** 0.5 * b


def taken(a_nd: Tensor, b_nd: Tensor, *, autos: bool = False) -> ViewMoments:
    moments = ViewMoments(a_nd.shape[1], CPU, autos=autos)
    moments.take(a_nd, b_nd)
    return moments


def whole(moments: ViewMoments) -> np.ndarray:
    return moments.correlation()(0, moments.features)[0].numpy()


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 30), max_size=6),
    joined=st.lists(st.booleans(), min_size=7, max_size=7),
    mean=st.sampled_from([0.0, 1e3, -1e4]),
)
def test_any_split_of_the_samples_gives_the_matrices_of_all_at_once(
    cuts: list[int], joined: list[bool], mean: float
) -> None:
    a_nd, b_nd = pair(30, 5, mean=mean)
    found = ViewMoments(5, CPU, autos=True)
    edges = [0, *sorted(cuts), 30]
    for start, stop, apart in zip(edges, edges[1:], joined, strict=False):
        piece = a_nd[start:stop], b_nd[start:stop]
        if apart:
            found.join(taken(*piece, autos=True))
        else:
            found.take(*piece)
    a, b = a_nd.numpy(), b_nd.numpy()
    centred = a - a.mean(0), b - b.mean(0)
    assert found.samples == 30
    rounding = {"rtol": 1e-9, "atol": 1e-15 * max(1.0, mean**2) * 30}
    np.testing.assert_allclose(found.cross_dd, centred[0].T @ centred[1], **rounding)
    assert found.autos_2dd is not None
    for auto_dd, view in zip(found.autos_2dd, centred, strict=True):
        np.testing.assert_allclose(auto_dd, view.T @ view, **rounding)
    np.testing.assert_allclose(found.means_2d, np.stack([a.mean(0), b.mean(0)]), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.squares_2d, np.stack([(view**2).sum(0) for view in centred]), **rounding)
    np.testing.assert_allclose(whole(found), np.corrcoef(a.T, b.T)[:5, 5:], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.second_moment(), a.T @ b / 30, rtol=1e-12, atol=1e-12)


def test_hand_worked_matrices() -> None:
    same = taken(D4, D4)
    np.testing.assert_allclose(whole(same), np.eye(2), atol=1e-15)
    assert matrix_sums(same.correlation(), 2) == MatrixSums(1.0, 0.0, 0.0)
    np.testing.assert_allclose(taken(2 * D4, 2 * D4).covariance(), 4 * np.eye(2), atol=1e-15)
    swapped = taken(D4, D4.flip(1))
    assert matrix_sums(swapped.correlation(), 2) == MatrixSums(0.0, 2.0, 0.0)
    # Feature 0 of a is feature 1 of b, and nothing the other way round: C_01 = 1, C_10 = 0.
    one_way = taken(D4[:, :1] * torch.tensor([[1.0, 0.0]]) + 7, D4[:, :1] * torch.tensor([[0.0, 1.0]]) + 7)
    assert matrix_sums(one_way.correlation(), 2) == MatrixSums(0.0, 1.0, 2.0)
    np.testing.assert_allclose(taken(D4 + 3, D4).second_moment(), np.eye(2), atol=1e-15)
    np.testing.assert_allclose(taken(D4 + 3, D4 + 1).second_moment(), np.eye(2) + 3, atol=1e-14)


def test_a_feature_that_is_constant_up_to_rounding_correlates_with_nothing() -> None:
    a_nd, b_nd = pair(30, 4, rho=1.0)
    a_nd[:, 2] = 50 + 1e-6 * a_nd[:, 1]
    found = whole(taken(a_nd.float(), b_nd.float()))
    assert not found[2].any()
    assert found[1, 1] == pytest.approx(1)


def test_sums_by_tiles_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.evaluation.view_moments.TILE", 22)  # 3 rows of 7
    moments = taken(*pair(20, 7))
    c_dd = moments.correlation()(0, 7)[0]
    off_dd = c_dd - torch.diag(c_dd.diagonal())
    each = (c_dd.diagonal().mean(), off_dd.square().sum(), (c_dd - c_dd.T).square().sum())
    expected = [float(one) for one in each]
    for rows in (moments.correlation(), rows_of(c_dd)):
        found = matrix_sums(rows, 7)
        assert [found.diagonal_mean, found.off_diagonal, found.asymmetry] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mixed", [False, True], ids=["independent", "correlated"])
def test_the_stated_errors_are_those_that_drawing_again_shows(mixed: bool) -> None:
    """400 images in 8 blocks, 200 times, against the scatter of all; features that correlate are no special case."""
    features, samples, blocks = 6, 400, 8
    mix_dd = torch.eye(features, dtype=torch.float64)
    if mixed:
        mix_dd += 0.7 * torch.randn(features, features, generator=torch.Generator().manual_seed(5)).double()
    matrices, stated, sums = [], [], []
    for seed in range(200):
        a_nd, b_nd = (view @ mix_dd for view in pair(samples, features, seed=seed))
        parts = [taken(*views) for views in zip(a_nd.chunk(blocks), b_nd.chunk(blocks), strict=True)]
        total = ViewMoments(features, CPU)
        for part in parts:
            total.join(part)
        sums.append(matrix_sums(total.correlation(), features))
        each = [matrix_sums(part.correlation(), features) for part in parts]
        stated.append(scatter(each, sums[-1], features, samples))
        matrices.append(whole(total))
    across = np.stack(matrices)
    off = ~np.eye(features, dtype=bool)
    met = np.sqrt(across.var(0, ddof=1)[off].mean())
    assert np.mean([one.entry for one in stated]) == pytest.approx(met, rel=0.1)
    if not mixed:
        assert met == pytest.approx(1 / (samples - 1) ** 0.5, rel=0.05), "the sampling floor"
    assert np.mean([one.asymmetry for one in stated]) == pytest.approx(np.mean([s.asymmetry for s in sums]), rel=0.15)
    error = np.std([s.diagonal_mean for s in sums], ddof=1)
    assert np.mean([one.diagonal_mean for one in stated]) == pytest.approx(error, rel=0.2)
    error = np.std([s.off_diagonal for s in sums], ddof=1)
    told = np.mean([one.off_diagonal for one in stated])
    assert told > 0.8 * error
    if mixed:
        assert told < 1.5 * error
