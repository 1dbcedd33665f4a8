"""Spectra of matrices of features, by the smaller one of two products.

Shape suffixes: n samples, d features, k of them that are not 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainer.evaluation.view_moments import ViewMoments


def squared_singular_values(x_nd: Tensor) -> Tensor:
    """Those of x (n, d), in descending order: min(n, d) of them, float64, on its device.

    They are the eigenvalues of x^T x, and of x x^T, of which the smaller is taken.
    """
    x_nd = x_nd.double()
    gram = x_nd @ x_nd.mT if x_nd.shape[0] < x_nd.shape[1] else x_nd.mT @ x_nd
    ascending: Tensor = torch.linalg.eigvalsh(gram)
    return ascending.flip(0).clamp(min=0)


def correlation_spectra(x_nd: Tensor, y_nd: Tensor, tick: Callable[[], None]) -> dict[str, np.ndarray]:
    """Of views whose features are centred and of length 1, (n, d) each, in descending order, min(n, d) numbers each:

    `spectrum`, the singular values of C = x^T y, and `spectrum_a`, `spectrum_b`, the eigenvalues of the
    auto-correlations x^T x and y^T y, whose sum is the number of features that vary. In float64; `tick` is called after
    each decomposition.

    Where n < d no matrix of features is made: with x x^T = U diag(a) U^T and y y^T = V diag(b) V^T, C has the singular
    values of diag(a)^1/2 U^T V diag(b)^1/2, which is n x n.
    """
    x_nd, y_nd = x_nd.double(), y_nd.double()
    if x_nd.shape[0] < x_nd.shape[1]:
        roots, bases, autos = [], [], []
        for view_nd in (x_nd, y_nd):
            values, vectors = torch.linalg.eigh(view_nd @ view_nd.mT)
            values = values.clamp(min=0)
            roots.append(values.sqrt())
            bases.append(vectors)
            autos.append(values.flip(0))
            tick()
        core = roots[0][:, None] * (bases[0].mT @ bases[1]) * roots[1]
    else:
        core, autos = x_nd.mT @ y_nd, []
        for view_nd in (x_nd, y_nd):
            autos.append(squared_singular_values(view_nd))
            tick()
    found = {"spectrum": torch.linalg.svdvals(core), "spectrum_a": autos[0], "spectrum_b": autos[1]}
    tick()
    return {name: values.cpu().numpy().astype(np.float32) for name, values in found.items()}


def moment_spectra(moments: ViewMoments, tick: Callable[[], None]) -> dict[str, np.ndarray]:
    """The same of moments that have each view's own: d numbers each, by d x d matrices."""
    assert moments.autos_2dd is not None
    scales_2d = moments.scales_2d()
    whole_dd, _ = moments.correlation()(0, moments.features)
    found = {"spectrum": torch.linalg.svdvals(whole_dd)}
    tick()
    for name, auto_dd, scale_d in zip(("spectrum_a", "spectrum_b"), moments.autos_2dd, scales_2d, strict=True):
        found[name] = torch.linalg.eigvalsh(scale_d[:, None] * auto_dd * scale_d).flip(0).clamp(min=0)
        tick()
    return {name: values.cpu().numpy().astype(np.float32) for name, values in found.items()}


def independent_spectrum(samples: int, features: int) -> np.ndarray:
    """The eigenvalues that the correlation of independent features has, in descending order: quantiles of the law of
    Marchenko and Pastur (1967), min(n - 1, d) of them."""
    ratio = features / (samples - 1)
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    # Even in angle: the density rises and falls by a root at both ends.
    angle = (np.arange(4000) + 0.5) * np.pi / 4000
    value = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    share = np.cumsum(np.sin(angle) ** 2 / value)
    count = min(samples - 1, features)
    ascending: np.ndarray = np.interp((np.arange(count) + 0.5) / count, share / share[-1], value)
    return ascending[::-1]
