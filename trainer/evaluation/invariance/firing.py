"""When a unit fires, how often it does along trajectories, and the score that this comes to.

Goodfellow et al. 2009 (Measuring invariances in deep networks), as Purushwalkam and Gupta 2020 (Demystifying
contrastive self-supervised learning, arXiv 2007.13916) condition it on classes Y. Unit i of the features h(x) fires
where s_i h_i(x) > t_i, with a sign s_i of -1 or 1, and

    G(i)   = E[f_i(x)] over the reference images = 1 / |Y|, which t_i is chosen for,
    L_y(i) = mean over the images z of class y, of the mean over x in T(z), of f_i(x),
    I_y(i) = L_y(i) / G(i),
    RIS    = mean over the classes of the mean of their K largest I_y(i).

I_y is |Y| where a unit fires along all trajectories of class y, and 1 where it fires as often as anywhere. Told in
percent it is 100 G(i) I_y(i): 100 at the top and 100 / |Y| for noise, before the K best are picked.

`formula`, with n reference images and m = n // |Y| of them to fire:

- t_i is the (m + 1)-th largest of s_i h_i(x): at most m are above it, and m where it is alone. Features behind a ReLU
  are 0 for many images at once: such a unit fires less often than m times where fewer are above 0, and never with s_i
  = -1. So does a constant unit, whose I_y is 0. G stays 1 / |Y| for all, so that ties lower a score and never raise
  it: by its own rate a unit that fired for one image in all would be at the top.
- s_i is the sign under which the unit fires for the larger part of some class's reference images; 1 where it is equal.

`demystifying`, as measure_invariances.py of that paper's authors has it, with g = max(1/|Y|, 5 %):

- Both thresholds are at the values of which floor(n (1 - g)) are before them; G(i) is how many are at or above the
  upper one, while along trajectories those fire that are above (or below the lower one): a constant unit has G = 1,
  and L = 0.
- The sign is chosen for each trajectory, the one by which it fires more often; trajectories on which it does not fire
  are dropped from the mean. So noise scores higher than by the formula.
- There the thresholds are of all images of the sets, here of the reference images as with the formula.

The shuffled score is that of trajectories whose images were exchanged: at each step the images are dealt out anew among
all trajectories. What is left is what classes, rate, number of units and transformation give without any invariance.

All is counted in whole numbers of whole columns of units: ranks and blocks change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

HIGH, LOW = 1, 2
"""Bits of what fires: above the upper threshold, below the lower one."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Of some units (d,)."""

    above: Tensor
    """float32: what is greater fires with a sign of 1,"""
    below: Tensor
    """and what is less than this with -1."""
    signs: Tensor | None
    """int64, -1 or 1, one for each unit; None: chosen for each trajectory."""
    rates: Tensor
    """float64: G(i), which a score is divided by."""
    fired: Tensor
    """int64: reference images on which the unit fires, with its sign or, where it has none, with that of 1."""

    def fires(self, values: Tensor) -> Tensor:
        """Where units fire: (..., d) float32 → (..., d) uint8 of the bits HIGH and LOW."""
        high = (values > self.above).to(torch.uint8)
        low = (values < self.below).to(torch.uint8)
        if self.signs is None:
            return high * HIGH + low * LOW
        return torch.where(self.signs > 0, high, low)


def formula_thresholds(reference: Tensor, labels: Tensor, rate: Fraction, classes: int) -> Thresholds:
    """One sign a unit, by the classes of the reference images: (n, d) float32, (n,) int64."""
    images = len(reference)
    firing = int(images * rate)
    assert 0 < firing < images, (images, rate)
    columns = reference.T.contiguous()  # (d, n): each unit's values lie together
    above, below = columns.kthvalue(images - firing).values, columns.kthvalue(firing + 1).values
    sizes = torch.bincount(labels, minlength=classes).clamp_min(1)
    largest, fired = [], []
    for fires in (columns > above[:, None], columns < below[:, None]):
        of_class = torch.zeros((len(columns), classes), dtype=torch.int32, device=columns.device)
        of_class.index_add_(1, labels, fires.int())
        largest.append((of_class.double() / sizes).amax(dim=1))
        fired.append(of_class.sum(dim=1))
    positive = largest[0] >= largest[1]
    signs = torch.where(positive, 1, -1)
    rates = torch.full_like(largest[0], float(rate))
    return Thresholds(above, below, signs, rates, torch.where(positive, fired[0], fired[1]))


def demystifying_thresholds(reference: Tensor, rate: Fraction) -> Thresholds:
    """Both signs of each unit: (n, d) float32."""
    images = len(reference)
    before = int(images * (1 - rate))
    columns = reference.T.contiguous()
    above, below = columns.kthvalue(before + 1).values, columns.kthvalue(images - before).values
    rates = (columns >= above[:, None]).sum(dim=1).double() / images
    return Thresholds(above, below, None, rates, (columns > above[:, None]).sum(dim=1))


def joined(parts: list[Thresholds]) -> Thresholds:
    """Those of all units, of the thresholds of some of them each."""
    signs = None if parts[0].signs is None else torch.cat([part.signs for part in parts if part.signs is not None])
    above, below = torch.cat([part.above for part in parts]), torch.cat([part.below for part in parts])
    rates, fired = torch.cat([part.rates for part in parts]), torch.cat([part.fired for part in parts])
    return Thresholds(above, below, signs, rates, fired)


def local_rates(fires: Tensor, labels: Tensor, classes: int, *, one_sign: bool) -> Tensor:
    """L_y(i) of trajectories: (n, steps, d) uint8, (n,) int64 → (classes, d) float64; 0 for a class without any."""
    steps = fires.shape[1]
    if one_sign:
        counts = fires.sum(dim=1, dtype=torch.int64)
        kept = torch.bincount(labels, minlength=classes)[:, None]
    else:
        high, low = ((fires & bit).ne(0).sum(dim=1, dtype=torch.int64) for bit in (HIGH, LOW))
        counts = torch.maximum(high, low)
        kept = _by_class(counts.ne(0).long(), labels, classes)
    return _by_class(counts, labels, classes).double() / (kept * steps).clamp_min(1)


def _by_class(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    found = torch.zeros((classes, values.shape[1]), dtype=torch.int64, device=values.device)
    return found.index_add_(0, labels, values)


def exchanged(fires: Tensor, permutations: Tensor) -> Tensor:
    """Trajectories (n, steps, d) whose images at each step were dealt out anew: the image at step k of the n-th is that
    of the trajectory `permutations[k, n]`."""
    return torch.stack([fires[order, step] for step, order in enumerate(permutations)], dim=1)


def class_scores(local: Tensor, thresholds: Thresholds, top_units: int, rate: Fraction) -> Tensor:
    """Each class's score in percent, (classes,) float64: 100 G times the mean of its K largest I_y(i); L is (classes,
    d)."""
    # G is 0 for no unit: at or above the value of one of the images there is that image.
    invariances = local / thresholds.rates
    return invariances.topk(top_units, dim=1).values.mean(dim=1) * (100.0 * float(rate))
