"""Spectra of matrices of features, by the smaller one of two products.

Shape suffixes: n samples, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squared_singular_values(x_nd: Tensor) -> Tensor:
    """Those of x (n, d), in descending order: min(n, d) of them, float64, on its device.

    They are the eigenvalues of x^T x, and of x x^T, of which the smaller is taken.
    """
    x_nd = x_nd.double()
    gram = x_nd @ x_nd.mT if x_nd.shape[0] < x_nd.shape[1] else x_nd.mT @ x_nd
    ascending: Tensor = torch.linalg.eigvalsh(gram)
    return ascending.flip(0).clamp(min=0)
