"""Pillow's GaussianBlur for a batch: three extended box blurs along each axis, as one matrix per sample.

Shape suffixes: n samples, 3 channels, s pixels of a side, m entries of a matrix and a 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BOXES = 3
_ONE = 2.0**16
"""Weights are whole 2^-16ths. A level below 2^8 times such weights, summed, is then exact in float32 whatever the order
of the sum: the result of a sample depends on no other sample, thread or kernel (TF32 products would round the weights
to 11 bits: at most 0.06 of a level)."""


def gaussian_blur(levels_n3ss: Tensor, sigma_n: Tensor, largest: float) -> Tensor:
    """Blur each sample by its own standard deviation in pixels, 0 leaves it as it is.

    Whole levels (n, 3, S, S) float32 in and out; `largest` is the greatest sigma, known to the host. Pillow rounds to
    whole levels after each of its six passes, this after each axis: about a third of a level apart in the mean.
    """
    size = levels_n3ss.shape[-1]
    matrix_nss = _blur_matrices(sigma_n.double(), size, largest).float()
    rows_n3ss = (levels_n3ss.flatten(1, 2) @ matrix_nss.mT).view_as(levels_n3ss)
    return (matrix_nss[:, None] @ _nearest(rows_n3ss)).add_(0.5).floor_()


def _nearest(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_()


def _blur_matrices(sigma_n: Tensor, size: int, largest: float) -> Tensor:
    """(n, size, size) float64: the matrix of one axis of each sample; rows sum to 1.

    All rows further than the blur's reach from both ends are one row, shifted. So the matrices are made for the
    smallest image that has such a row, and spread out.
    """
    reach = BOXES * (math.floor(_box_half(torch.tensor(largest, dtype=torch.float64)).item() - 0.5) + 1)
    small = 2 * reach + 1
    if size <= small:
        return _box_cubed(sigma_n, size)
    place = torch.arange(size, device=sigma_n.device)
    row = torch.minimum(place, torch.clamp(place - (size - small), min=reach))
    column = place[None, :] - (place - row)[:, None]
    entry = (row[:, None] * small + column).masked_fill_((column < 0) | (column >= small), small * small)
    entries_nm = F.pad(_box_cubed(sigma_n, small).flatten(1), (0, 1))
    return entries_nm.index_select(1, entry.flatten()).view(-1, size, size)


def _box_cubed(sigma_n: Tensor, size: int) -> Tensor:
    """(n, size, size) float64, whole 2^-16ths: the matrix of three box blurs whose ends repeat the last pixel."""
    half_n11 = _box_half(sigma_n)[:, None, None]
    place = torch.arange(size, dtype=torch.float64, device=sigma_n.device)
    borders = (place[:-1] + 0.5) - place[:, None]
    # How much of the box around pixel i lies left of the border between two pixels; what lies outside the image
    # counts for its first and its last pixel.
    left_of = _whole(((borders + half_n11) / (2 * half_n11)).clamp_(0.0, 1.0))
    box = F.pad(F.pad(left_of, (1, 0)), (0, 1), value=1.0).diff(dim=-1)
    # Whole 2^-48ths, exact in float64; cut down to 2^-16ths so that a row still sums to 1.
    left_of = _whole((box @ box @ box).cumsum(-1))
    return F.pad(left_of, (1, 0)).diff(dim=-1)


def _whole(parts: Tensor) -> Tensor:
    return parts.mul_(_ONE).round_().div_(_ONE)


def _box_half(sigma: Tensor) -> Tensor:
    """Half the width in pixels, fractional, of the box that gives the standard deviation `sigma` after BOXES passes.

    Gwosdek et al., Theoretical foundations of Gaussian convolution by extended box filtering (SSVM 2011), equations 7,
    11 and 14, as Pillow's GaussianBlur takes them.
    """
    variance = sigma.square() / BOXES
    whole = ((12 * variance + 1).sqrt().sub_(1).div_(2)).floor_()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    return whole + part + 0.5
