"""The objective as its document states it, for tests: plain autograd over the whole matrix, in one process."""

from __future__ import annotations

import torch
from torch import Tensor


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


def uncorrelated(samples: int, features: int) -> Tensor:
    """(samples, features), fewer than samples: centred and orthonormal, each feature a wave of its own (DCT-II)."""
    turns = (torch.arange(samples, dtype=torch.float64)[:, None] + 0.5) * torch.arange(1, features + 1)
    return torch.cos(torch.pi / samples * turns) * (2 / samples) ** 0.5
