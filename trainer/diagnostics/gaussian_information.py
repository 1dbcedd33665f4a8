"""Entropies and informations of two views of a batch in nats, as if features were normal.

With A, B the representations of the two views of N images, each feature of each view at mean 0 and variance 1, and
C_A, C_B, C_AB, C_D the covariances of A, of B, of both side by side, and of (A - B) / sqrt(2):

    H(Z)   = 1/2 [h(C_A) + h(C_B)]            h(C) = 1/2 log |2 pi e (C + eps I)|
    H(Z|X) = h(C_D)
    I(Z;X) = H(Z) - H(Z|X)
    I(A;B) = h(C_A) + h(C_B) - h(C_AB) = -1/2 sum_k log(1 - rho_k^2), rho_k the canonical correlations

Source: Zbontar et al. 2021 (arXiv 2103.03230), appendix A, equations 5 to 8, with what
trainer.objectives.information_bottleneck says of them. Here beyond that:

- H(Z) is that of a view of which one knows whether it is an a or a b, since the two come of different augmentations.
  The diagonal of C_D is 1 - C_ii of the matrix that Barlow Twins takes.
- C_D is the mean over images of what augmentation does to each. By Jensen h(C_D) >= E_X h(C_{Z|X}), and a normal law
  has the most entropy of its covariance: H(Z|X) is an upper bound, and I(Z;X) a lower one where Z itself is normal.
- eps is the variance of noise that is thought to be added to each feature: without it a direction that does not vary
  has an entropy of minus infinity. It is the same in all terms.
- Of more than `most` features it is that many directions, orthonormal and drawn once and for all: the k-sliced mutual
  information of Goldfeld, Greenewald, Nuradha and Reeves 2022 (arXiv 2206.08526), by one draw. No function of Z tells
  more of X than Z does, so it is a lower bound of that of all; a mixture of many features is closer to a normal one
  than each of them; and a batch shows the covariance of few directions well, whatever the width.
- log |C + eps I| of an estimated C lies low, by 5 nats of 32 directions and 128 images, and by nothing where C is below
  eps. `log_determinant_of` takes that away.

Tests: tests/trainer/diagnostics/test_information_plane.py. Shape suffixes: 2 views, n images, d features, k directions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.diagnostics.spectra import squared_singular_values
from trainer.objectives.correlation import unit_features

FLOOR = 1e-3
"""Eps: noise of 3 % of a feature's deviation, as objective information_bottleneck has it by default."""

QUANTITIES = ("entropy", "conditional_entropy", "information", "view_information")


def informations(z_a_nd: Tensor, z_b_nd: Tensor, most: int) -> dict[str, float]:
    """H(Z), H(Z|X), I(Z;X) and I(A;B), by QUANTITIES, of both views' features, (N, d) of the whole batch, or of `most`
    directions of them. Without those that so few images do not show: N - 1 is to be above the directions, and for
    I(A;B) above twice as many."""
    samples, width = z_a_nd.shape
    free = samples - 1
    directions = min(width, most)
    if free <= directions:
        return {}
    views_2nd = unit_features(z_a_nd, z_b_nd, over_ranks=False)[0]
    if directions < width:
        views_2nd = views_2nd @ drawn_directions(width, directions).to(views_2nd)
    a_nk, b_nk = views_2nd.double().cpu() * math.sqrt(free)
    of_a, of_b, apart = (
        entropy(log_determinant_of(squared_singular_values(x_nk) / free, free, FLOOR), directions)
        for x_nk in (a_nk, b_nk, (a_nk - b_nk) / math.sqrt(2))
    )
    found = [(of_a + of_b) / 2, apart, (of_a + of_b) / 2 - apart]
    if free > 2 * directions:
        together_n2k = torch.cat([a_nk, b_nk], 1)
        together = log_determinant_of(squared_singular_values(together_n2k) / free, free, FLOOR)
        found.append(of_a + of_b - entropy(together, 2 * directions))
    return dict(zip(QUANTITIES, found, strict=False))


def entropy(log_determinant: float, directions: int) -> float:
    """That of a normal law whose covariance has this log-determinant."""
    return (directions * math.log(2 * math.pi * math.e) + log_determinant) / 2


def log_determinant_of(variances_k: Tensor, free: int, floor: float) -> float:
    """log |Sigma + floor I|, estimated from the eigenvalues of S, the covariance of normal samples with n = `free`
    degrees of freedom, more than there are eigenvalues.

    log |Sigma + eps I| = k log eps + log |I + S / y| + n [log(y / eps) + 1 - y / eps],
    with y in (0, eps] such that 1/n [tr (S + y I)^-1 + (n - k) / y] = 1 / eps:

    the deterministic equivalent of log |I + S / y| (Hachem, Loubaton, Najim 2007, Annals of Applied Probability 17),
    solved for Sigma. Where eps is far below all of S it is log |S| less its bias (`bias_of_log_determinant` of
    trainer.objectives.log_determinants), but for 1/2 log(1 - k / n); where S is far below eps, the plain one.
    """
    variances_k = variances_k.double()
    of_zero = free - len(variances_k)
    y = floor * of_zero / free
    # Newton's, from below: the mean of 1 / (s + y) falls and is convex, so that no step passes the root.
    for _ in range(40):
        inverse_k = 1 / (variances_k + y)
        above = (float(inverse_k.sum()) + of_zero / y) / free - 1 / floor
        slope = (float(inverse_k.square().sum()) + of_zero / y**2) / free
        y += above / slope
        if abs(above) < 1e-13 / floor:
            break
    ratio = y / floor
    plain = len(variances_k) * math.log(floor) + float((variances_k / y).log1p().sum())
    return plain + free * (math.log(ratio) + 1 - ratio)


def drawn_directions(width: int, directions: int) -> Tensor:
    """(d, k) with orthonormal columns, the same ones for every job: even over all there are (Haar's measure)."""
    generator = torch.Generator().manual_seed(0)
    basis_dk: Tensor = torch.linalg.qr(torch.randn(width, directions, generator=generator, dtype=torch.float64)).Q
    return basis_dk
