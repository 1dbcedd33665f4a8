"""The objective as its document states it, for tests: plain autograd over the whole matrix, in one process.

Shape suffixes: n images, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from barlow_lab.specs import BarlowTwinsSpec


def correlation(z_a_nd: Tensor, z_b_nd: Tensor) -> Tensor:
    """C (d_a, d_b) of embeddings (N, d_a) and (N, d_b): Zbontar et al. 2021, equation 2."""
    x_nd, y_nd = (z - z.mean(0) for z in (z_a_nd, z_b_nd))
    return (x_nd.mT @ y_nd) / torch.outer(x_nd.norm(dim=0), y_nd.norm(dim=0))


def loss(z_a_nd: Tensor, z_b_nd: Tensor, lambda_: float) -> Tensor:
    """Zbontar et al. 2021, equation 1."""
    c_dd = correlation(z_a_nd, z_b_nd)
    off_dd = c_dd - torch.diag(c_dd.diagonal())
    return (1 - c_dd.diagonal()).square().sum() + lambda_ * off_dd.square().sum()


def loss_and_gradient(z_a_nd: Tensor, z_b_nd: Tensor, lambda_: float) -> tuple[Tensor, Tensor]:
    """The loss and its gradient (2, N, d), in float64."""
    views = torch.stack([z_a_nd, z_b_nd]).double().requires_grad_()
    value = loss(views[0], views[1], lambda_)
    return value.detach(), torch.autograd.grad(value, views)[0]


def matrix(z_a_nd: Tensor, z_b_nd: Tensor, of: BarlowTwinsSpec) -> Tensor:
    """What a spec asks to be the identity: the Pearson matrix; the covariances by N; or factor / N times the products
    of rows of length 1 of standardised features."""
    if of.normalisation == "pearson":
        return correlation(z_a_nd, z_b_nd)
    x_nd, y_nd = (z - z.mean(0) for z in (z_a_nd, z_b_nd))
    if of.normalisation == "none":
        return x_nd.mT @ y_nd / len(x_nd)
    x_nd, y_nd = (F.normalize(x / x.std(0, correction=0), dim=1) for x in (x_nd, y_nd))
    return (x_nd.mT @ y_nd) * ((of.factor or x_nd.shape[1]) / len(x_nd))


def variant(z_a_nd: Tensor, z_b_nd: Tensor, of: BarlowTwinsSpec, predictor: nn.Module | None = None) -> Tensor:
    """Zbontar et al. 2021, equation 1, and what its section 4 and appendix A vary."""
    a_nd = z_a_nd if predictor is None else predictor(z_a_nd)
    b_nd = z_b_nd.detach() if of.stop_gradient else z_b_nd
    diagonal_d = matrix(a_nd, b_nd, of).diagonal()
    pairs = {"cross": [(a_nd, b_nd)], "auto": [(a_nd, a_nd), (b_nd, b_nd)], "auto_a": [(a_nd, a_nd)]}[of.redundancy]
    beside = ~torch.eye(len(diagonal_d), dtype=torch.bool)
    entries = [matrix(*pair, of)[beside] for pair in pairs]
    if of.loss == "squares":
        on, off = (1 - diagonal_d).square().sum(), [one.square().sum() for one in entries]
    else:
        assert of.temperature is not None
        on = -(diagonal_d / of.temperature).exp().sum().log()
        off = [(one.clamp(min=0) / of.temperature).exp().sum().log() for one in entries]
    return (of.terms != "off_diagonal") * on + (of.terms != "on_diagonal") * of.lambda_ * torch.stack(off).mean()


def uncorrelated(samples: int, features: int) -> Tensor:
    """(samples, features), fewer than samples: centred and orthonormal, each feature a wave of its own (DCT-II)."""
    turns = (torch.arange(samples, dtype=torch.float64)[:, None] + 0.5) * torch.arange(1, features + 1)
    return torch.cos(torch.pi / samples * turns) * (2 / samples) ** 0.5
