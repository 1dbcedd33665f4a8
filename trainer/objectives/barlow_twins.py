"""The Barlow Twins objective, its published variants, and the parts of it that are worth watching.

    L = sum_i (1 - C_ii)^2 + lambda * sum_{i != j} C_ij^2

of the cross-correlation matrix C of two views over the batch of all ranks. Source: Zbontar et al. 2021
(arXiv 2103.03230), equation 1, which is what is computed unless the spec says otherwise. What its ablations vary:

- the matrix: trainer.objectives.normalisations;
- which terms, and of which matrix the second one is: trainer.objectives.squares, by the ways to the products of
  trainer.objectives.products;
- logarithms in the place of squares: trainer.objectives.cross_entropy;
- the symmetry of the views (section 4, breaking symmetry): a predictor on view a, no gradient through view b, or both.

Tests, in tests/trainer/objectives: test_objectives_laws.py (a case by hand, finite differences, what changes nothing),
test_objectives_forms.py (the three forms agree), test_objectives_precision.py (float32), test_barlow_twins_variants.py;
any number of ranks: `objective` and `barlow_twins_variants` in tests/support/rank_laws.py.

Shape suffixes: n samples of this rank, d features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from barlow_lab.specs.loss_form import LossFormOrAuto
from barlow_lab.specs.objectives import BarlowTwinsSpec
from trainer.models.predictor import build_predictor
from trainer.objectives.base import Objective, Run, Terms
from trainer.objectives.correlation import noise_floor
from trainer.objectives.cross_entropy import CrossEntropy
from trainer.objectives.normalisations import unit_rows
from trainer.objectives.squares import Squares
from trainer.runtime import collectives

MATRICES = {"pearson": "correlation", "none": "covariance", "feature": "unit_covariance"}
"""What C is, by the normalisation that makes it; its numbers are recorded under this name."""


@dataclass(frozen=True, slots=True)
class BarlowTwinsTerms:
    """The loss and its parts: scalars, the same on every rank. Only `loss` carries a gradient."""

    loss: Tensor
    on_diagonal: Tensor
    off_diagonal: Tensor
    off_diagonal_excess: Tensor
    correlation_diagonal_mean: Tensor
    correlation_off_diagonal_rms: Tensor
    noise_floor: float


def barlow_twins(z_a_nd: Tensor, z_b_nd: Tensor, lambda_: float, form: LossFormOrAuto = "auto") -> BarlowTwinsTerms:
    """The objective of `z_a_nd`, `z_b_nd`: this rank's embeddings of the two views, (n, d), the same n on every rank.

    `off_diagonal` is the plain sum, without lambda; `off_diagonal_excess` = lambda * (off_diagonal - noise_floor) is
    what is comparable across batch sizes, and may be negative.

    The gradient is the true one of the global batch (the convention of trainer.runtime.collectives). All is computed in
    float32 outside autocast, in float64 for float64 input; the host waits for nothing. `form` is one of three exact
    ways to compute it, `auto` the one that barlow_lab.specs.loss_form chooses.

    Raises:
        ValueError: the two shapes differ, or the global batch has a single sample.
    """
    given: dict[str, Any] = {"lambda": lambda_, "form": form}
    return _squares(z_a_nd, z_b_nd, BarlowTwinsSpec.model_construct(**given))


def _squares(z_a_nd: Tensor, z_b_nd: Tensor, spec: BarlowTwinsSpec) -> BarlowTwinsTerms:
    """The same of what a spec asks for: C by its normalisation, and what is off the diagonal of its matrix."""
    with torch.autocast(z_a_nd.device.type, enabled=False):
        loss, diagonal_d, off_diagonal = Squares.apply(z_a_nd, z_b_nd, spec)
        features = z_a_nd.shape[1]
        floor = noise_floor(features, samples=z_a_nd.shape[0] * collectives.world_size())
        # The dual's difference may end a rounding below 0 when nothing is off the diagonal.
        off_diagonal = off_diagonal.clamp(min=0)
        return BarlowTwinsTerms(
            loss=loss,
            on_diagonal=(1 - diagonal_d).square().sum(),
            off_diagonal=off_diagonal,
            off_diagonal_excess=spec.lambda_ * (off_diagonal - floor),
            correlation_diagonal_mean=diagonal_d.mean(),
            correlation_off_diagonal_rms=(off_diagonal / max(1, features * (features - 1))).sqrt(),
            noise_floor=floor,
        )


class BarlowTwins(Objective):
    """`barlow_twins` as its spec asks for it."""

    spec: BarlowTwinsSpec

    def __init__(self, spec: BarlowTwinsSpec) -> None:
        super().__init__(spec)
        of_the_embeddings = spec.normalisation == "pearson" and spec.predictor_width is None
        if of_the_embeddings and spec.loss == "squares" and spec.redundancy == "cross" and spec.terms != "on_diagonal":
            self.off_diagonal_weight = spec.lambda_

    def begin(self, run: Run) -> None:
        """Make the predictor, where the spec asks for one."""
        hidden = self.spec.predictor_width
        if hidden is not None:
            # No bias: the means of features are taken out.
            self.parts = nn.ModuleDict({"predictor": build_predictor(run.width, hidden, bias=False, seed=run.seed)})

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        with torch.autocast(z_a_nd.device.type, enabled=False):
            if self.parts is not None:
                z_a_nd = self.parts["predictor"](z_a_nd.to(torch.promote_types(z_a_nd.dtype, torch.float32)))
            if self.spec.stop_gradient:
                z_b_nd = z_b_nd.detach()
            if self.spec.normalisation == "feature":
                z_a_nd, z_b_nd = unit_rows(z_a_nd, z_b_nd)
            return self._of_squares(z_a_nd, z_b_nd) if self.spec.loss == "squares" else self._of_logs(z_a_nd, z_b_nd)

    def _of_squares(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        """With what is in the loss, and what its matrix is like; a noise floor only a correlation has."""
        terms = _squares(z_a_nd, z_b_nd, self.spec)
        matrix = MATRICES[self.spec.normalisation]
        parts, known = {}, {}
        if self.spec.terms != "off_diagonal":
            parts["on_diagonal"] = terms.on_diagonal
        if self.spec.terms != "on_diagonal":
            parts["off_diagonal"] = terms.off_diagonal
            if matrix == "correlation":
                parts["off_diagonal_excess"] = terms.off_diagonal_excess
                known["noise_floor"] = terms.noise_floor
        parts[f"{matrix}_diagonal_mean"] = terms.correlation_diagonal_mean
        if self.spec.terms != "on_diagonal":
            own = "" if self.spec.redundancy == "cross" else "auto_"
            parts[f"{own}{matrix}_off_diagonal_rms"] = terms.correlation_off_diagonal_rms
        return Terms(terms.loss, parts, known)

    def _of_logs(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        loss, on_diagonal, off_diagonal, diagonal_d = CrossEntropy.apply(z_a_nd, z_b_nd, self.spec)
        parts = {}
        if self.spec.terms != "off_diagonal":
            parts["on_diagonal_cross_entropy"] = on_diagonal
        if self.spec.terms != "on_diagonal":
            parts["off_diagonal_cross_entropy"] = off_diagonal
        return Terms(loss, {**parts, f"{MATRICES[self.spec.normalisation]}_diagonal_mean": diagonal_d.mean()})
