"""Log-determinants of covariances, by whichever of two matrices is smaller, and what their gradient needs.

Of C = X^T X / m, with N rows of d features in X and a floor alpha,

    log |C + alpha I_d| = (d - N) log alpha + log |X X^T / m + alpha I_N|,
    X (C + alpha I_d)^-1 = (X X^T / m + alpha I_N)^-1 X

(Sylvester's determinant identity, and the push-through identity that goes with it): so where N < d the N x N matrix of
products between samples stands for the covariance, exactly. With d / dC log |C + alpha I| = (C + alpha I)^-1, the
gradient with respect to X is 2 / m X (C + alpha I)^-1.

Products are of float32 operands (float64 for float64 rows), factorisations are Cholesky's in float64. Shrinkage: Chen,
Wiesel, Eldar, Hero 2010 (arXiv 0907.4698), equation 23. Tests: tests/trainer/objectives/test_objectives_bottleneck.py.

Shape suffixes: n rows of this rank, m of all ranks, d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.runtime import collectives


@dataclass(frozen=True, slots=True)
class LogDeterminant:
    """log |(1 - rho) C + (rho tr C / d + floor) I|, in float64 and the same on every rank but for `pulls_nd`.

    `at_floor` = alpha tr (C + alpha I)^-1 of the shrunk C with its floor alpha: how many of the d directions
    are as wide as the floor has it, and not the data; a direction of variance v counts alpha / (v + alpha).
    `shrinkage` is rho. `failed`: rounding has left no positive pivot, and the diagonal was taken for the matrix, as if
    features (or samples) were independent. `pulls_nd` = X d value / d C for this rank's rows.
    """

    value: Tensor
    at_floor: Tensor
    shrinkage: Tensor
    failed: Tensor
    pulls_nd: Tensor


def log_determinant(x_nd: Tensor, rows: int, divisor: int, floor: float, *, samples: int | None) -> LogDeterminant:
    """Of C = sum over the `rows` rows x of all ranks of x x^T / `divisor`; `x_nd` are this rank's, as many on each.

    `samples`: C is shrunk as an estimate from so many independent ones; None: not at all. No gradient goes through rho.
    Every rank calls this; the host waits for nothing.
    """
    features = x_nd.shape[1]
    by_samples = rows < features
    if by_samples:
        every_md = collectives.all_gather(x_nd).flatten(0, 1)
        small = every_md @ every_md.mT
    else:
        small = collectives.all_reduce_(x_nd.mT @ x_nd)
    small = small.to(torch.float64).div_(divisor)
    trace = small.diagonal().sum()
    rho = torch.zeros_like(trace)
    if samples is not None:
        rho = _oracle_approximating_shrinkage(trace, small.square().sum(), features, samples)
        small.mul_(1 - rho)
    alpha = floor + rho * trace / features
    small.diagonal().add_(alpha)
    factor, failed = _cholesky(small)
    value = 2 * factor.diagonal().log().sum()
    inverse = torch.cholesky_inverse(factor)
    inverse_trace = inverse.diagonal().sum()
    if by_samples:
        value = value + (features - rows) * alpha.log()
        inverse_trace = inverse_trace + (features - rows) / alpha
        mine = slice(collectives.rank() * len(x_nd), (collectives.rank() + 1) * len(x_nd))
        pulls_nd = inverse[mine].to(x_nd.dtype) @ every_md
    else:
        pulls_nd = x_nd @ inverse.to(x_nd.dtype)
    if samples is not None:
        pulls_nd = pulls_nd * (1 - rho).to(x_nd.dtype)
        pulls_nd.add_(x_nd * (rho * inverse_trace / features).to(x_nd.dtype))
    return LogDeterminant(value, alpha * inverse_trace, rho, failed, pulls_nd)


def _cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """L (lower) with L L^T = matrix, and whether there was none: then L is the root of the diagonal."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    failed = info != 0
    roots = torch.where(failed, matrix.diagonal().sqrt(), factor.diagonal())
    factor.masked_fill_(failed, 0.0)
    factor.diagonal().copy_(roots)
    return factor, failed


def _oracle_approximating_shrinkage(trace: Tensor, squares: Tensor, features: int, samples: int) -> Tensor:
    """rho of a covariance with this trace and this sum of squares, estimated from so many samples: in [0, 1]."""
    above = (1 - 2 / features) * squares + trace.square()
    below = (samples + 1 - 2 / features) * (squares - trace.square() / features)
    # A multiple of the identity has 0 below, and whatever is drawn to it stays.
    return (above / below.clamp(min=torch.finfo(below.dtype).tiny)).clamp(max=1)


def bias_of_log_determinant(features: int, samples: int) -> float | None:
    """How far E log |S| lies from log |Sigma|, in nats: S is the covariance, by n = `samples` - 1, of normal samples.

    sum over k < d of psi((n - k) / 2), minus d log(n / 2), since |S| / |Sigma| is a product of chi-squares with n - k
    degrees of freedom, by n (Bartlett's decomposition). None: with n < d there is no log |S|.
    """
    n = samples - 1
    if n < features:
        return None
    halves = (n - torch.arange(features, dtype=torch.float64)) / 2
    return float(torch.special.digamma(halves).sum() - features * torch.tensor(n / 2, dtype=torch.float64).log())
