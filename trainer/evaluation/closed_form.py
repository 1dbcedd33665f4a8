"""The linear projector that solves Barlow Twins without normalisation, and what it is worth: protocol `closed_form/1`.

Source: "Why Barlow Twins work: the critical role of normalization" (2024, openreview ZINaxJyoQr), section 2. Behind a
linear projector W the cross-correlation without normalisation is C = W S W^T (equation 5), with S that of
its features (equation 6), symmetric where both views are of one distribution. With S = V diag(s) V^T and
W = diag(s)^-1/2 V^T it is the identity: the loss is 0 though nothing was trained, on whatever backbone.

What differs from the document: means in place of its sums over images and views, or W would hang on their number; S is
centred, unless `centred` is false: it is a covariance then, and a constant feature is no solution. Its estimate of N
images is never symmetric: the symmetric part, which both orders of the views give, is decomposed. Directions whose
eigenvalue is below `floor` times the largest are dropped, and with them those that noise has made negative; W has as
many rows as are left, and the loss, sum (1 - C_ii)^2 + lambda sum over i != j of C_ij^2, is over these.

Tests: tests/trainer/evaluation/test_evaluation_closed_form.py. Shape suffixes: d features, k of them kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from barlow_lab.disk import naming
from barlow_lab.specs import ClosedFormSpec
from barlow_lab.specs.common import sample_fault, width_fault
from barlow_lab.specs.kinds.closed_form import NARROWER
from barlow_lab.specs.views import ViewsSpec
from trainer.data.datasets import Images
from trainer.data.errors import DataError
from trainer.data.registry import open_images
from trainer.evaluation.backbone import open_backbone
from trainer.evaluation.closed_form_picture import draw_closed_form
from trainer.evaluation.splits import open_splits
from trainer.evaluation.view_moments import (
    MatrixSums,
    Scatter,
    ViewMoments,
    matrix_sums,
    rows_of,
    scatter,
    symmetry_defect,
)
from trainer.evaluation.view_pass import BLOCKS, drawn_images, stream_views
from trainer.failures import BadSpec
from trainer.runtime.context import Context
from trainer.runtime.started import journal_started
from trainer.runtime.units import Stopped, Units

PHASE = "closed form"
KEY = "closed-form"
NOTHING_VARIES = (
    "no direction of the features varies alike in both views, so there is nothing to whiten: the backbone has "
    "collapsed, or the images hold nothing (docs/data-sets.md, When images are black)"
)


def run_closed_form(spec: ClosedFormSpec, context: Context) -> dict[str, Any] | None:
    """Decompose S and try W on the images of S and on others; None if a stop was asked for. Metrics
    `closed_form_...` at the step that counts the images.

    Raises:
        BadSpec: the backbone cannot be used, or no direction of its features varies alike in both views.
        DataError: the data cannot be used.
    """
    journal_started(context, spec, resume_step=0)
    units = Units(context)
    try:
        backbone = open_backbone(spec, context)
        _judge_width(backbone.module, spec, context)
        splits = open_splits(spec, context, open_images, pretrained_on=backbone.pretrained_on)
        for name, dataset in (("images of S", splits.train), ("held-out images", splits.test)):
            _judge_count(len(dataset), name)
        own = _estimate(backbone.module, splits.train, spec, context, units, part=0)
        if not own.moments.scales_2d().any(1).all():
            raise BadSpec(NOTHING_VARIES)
        held_out = _estimate(backbone.module, splits.test, spec, context, units, part=1)
    except Stopped:
        return None
    backbone.check_frozen()
    s_dd, other_dd = (
        one.moments.covariance() if spec.centred else one.moments.second_moment() for one in (own, held_out)
    )
    context.working(PHASE)
    solution = solve(s_dd, spec.floor)
    context.working(PHASE)
    reached = {
        name: Reached.of(solution.projector_kd @ matrix_dd @ solution.projector_kd.mT, spec.lambda_)
        for name, matrix_dd in (("own", s_dd), ("held_out", other_dd))
    }
    scores = {
        **{name: reached[name].solved for name in ("held_out", "own")},
        "symmetry_defect": 100 * own.defects[-1][1],
        "symmetry_defect_floor": 100 * own.defects[-1][2],
    }
    if context.journal is not None:
        _record(scores, own, solution, reached, context)
    features, kept = len(solution.eigenvalues_d), len(solution.projector_kd)
    return {
        "headline": "held_out",
        "scores": {name: {"last": value, "best": value} for name, value in scores.items()},
        "features": features,
        "kept": kept,
        "dropped": {"directions": features - kept, "negative": int((solution.eigenvalues_d < 0).sum())},
        "eigenvalues": {
            "largest": float(solution.eigenvalues_d[0]),
            "smallest_kept": float(solution.eigenvalues_d[kept - 1]),
        },
        **{name: one.facts() for name, one in reached.items()},
        "entry_error": own.error.entry,
        "symmetry": [{"images": n, "defect": defect, "floor": floor} for n, defect, floor in own.defects],
        **splits.facts(
            train_images=own.moments.samples, test_images=held_out.moments.samples, train_unreadable=0,
            test_unreadable=0,
        ),
        "backbone": {"source": backbone.source, "digest": backbone.digest, "features": features},
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Estimate:
    """What some images tell of a backbone: their moments, the error of their correlation, and its symmetry defect."""

    moments: ViewMoments
    error: Scatter
    defects: list[tuple[int, float, float]]
    """Of the first N images, N doubling up to all: N, the symmetry defect, and what N images of a symmetric population
    would show of it, by the scatter of all parts."""


def _estimate(
    backbone: nn.Module, dataset: Images, spec: ClosedFormSpec, context: Context, units: Units, *, part: int
) -> Estimate:
    name = ("images of S", "held-out images")[part]
    whole: ViewMoments | None = None
    parts: list[MatrixSums] = []
    doubled: list[tuple[int, MatrixSums]] = []
    for block in stream_views(
        backbone,
        dataset,
        views_drawn(spec),
        drawn_images(len(dataset), (spec.samples, spec.held_out)[part], seed=spec.seed, part=part),
        part=part,
        seed=spec.seed,
        batch_size=spec.batch_size,
        phase=name,
        context=context,
        units=units,
    ):
        parts.append(matrix_sums(block.correlation(), block.features))
        if whole is None:
            whole = block
        else:
            whole.join(block)
        if BLOCKS % len(parts) == 0:
            doubled.append((whole.samples, matrix_sums(whole.correlation(), whole.features)))
        context.working(name)
    assert whole is not None
    error = scatter(parts, doubled[-1][1], whole.features, whole.samples)
    defects = [
        (
            n,
            symmetry_defect(sums.asymmetry, sums.off_diagonal),
            symmetry_defect(error.asymmetry * (whole.samples - 1) / (n - 1), sums.off_diagonal),
        )
        for n, sums in doubled
    ]
    return Estimate(whole, error, defects)


def views_drawn(spec: ClosedFormSpec) -> ViewsSpec:
    """The pipelines of both views: one and the same of `distributions: one`."""
    return spec.views if spec.distributions == "two" else spec.views.model_copy(update={"b": spec.views.a})


def _judge_count(images: int, name: str) -> None:
    if said := sample_fault(images, name):
        raise DataError(said)


def _judge_width(backbone: nn.Module, spec: ClosedFormSpec, context: Context) -> None:
    side = spec.views.size
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, side, side, device=context.device)).shape[1]
    if said := width_fault(features, NARROWER):
        raise BadSpec(said)


@dataclass(frozen=True, slots=True)
class Solution:
    """W (k, d), and the eigenvalues of S (d) in descending order, those that were dropped among them."""

    projector_kd: Tensor
    eigenvalues_d: Tensor


def solve(s_dd: Tensor, floor: float) -> Solution:
    """W with W S W^T = I for the symmetric part of S, without directions below `floor` of the largest eigenvalue.

    Raises:
        BadSpec: no eigenvalue is positive.
    """
    ascending_d, vectors_dd = torch.linalg.eigh((s_dd + s_dd.mT) / 2)
    eigenvalues_d = ascending_d.flip(0)
    if not bool(eigenvalues_d[0] > 0):
        raise BadSpec(NOTHING_VARIES)
    kept = int((eigenvalues_d >= floor * eigenvalues_d[0]).sum())
    projector_kd = vectors_dd.flip(1)[:, :kept].mT / eigenvalues_d[:kept, None].sqrt()
    return Solution(projector_kd, eigenvalues_d)


@dataclass(frozen=True, slots=True)
class Reached:
    """C = W S W^T (k, k), and the loss of it."""

    matrix_kk: Tensor
    loss: float
    sums: MatrixSums

    @classmethod
    def of(cls, matrix_kk: Tensor, weight: float) -> Reached:
        """The loss with this lambda."""
        sums = matrix_sums(rows_of(matrix_kk), len(matrix_kk))
        invariance = float((1 - matrix_kk.diagonal()).square().sum())
        return cls(matrix_kk, invariance + weight * sums.off_diagonal, sums)

    @property
    def solved(self) -> float:
        """Percent of the loss of constant features, whose C is 0 and whose loss is k, that is gone."""
        return 100 * (1 - self.loss / len(self.matrix_kk))

    def facts(self) -> dict[str, float]:
        """For the result."""
        pairs = max(1, len(self.matrix_kk) * (len(self.matrix_kk) - 1))
        return {
            "loss": self.loss,
            "diagonal_mean": self.sums.diagonal_mean,
            "off_diagonal_rms": (self.sums.off_diagonal / pairs) ** 0.5,
        }


def _record(
    scores: dict[str, float], own: Estimate, solution: Solution, reached: dict[str, Reached], context: Context
) -> None:
    journal = context.journal
    assert journal is not None
    for n, defect, floor in own.defects:
        values = {"closed_form_symmetry_defect": 100 * defect, "closed_form_symmetry_defect_floor": 100 * floor}
        if n == own.moments.samples:
            values |= {f"closed_form_{name}": value for name, value in scores.items()}
            values |= {f"closed_form_{name}_loss": one.loss for name, one in reached.items()}
            values["closed_form_kept"] = float(len(solution.projector_kd))
        journal.metrics(n, 0, values)
    arrays = {
        "eigenvalues": solution.eigenvalues_d.cpu().numpy(),
        "projector": solution.projector_kd.float().cpu().numpy(),
        **{name: one.matrix_kk.float().cpu().numpy() for name, one in reached.items()},
        "symmetry": np.array(own.defects),
    }
    folder = context.attempt_folder / KEY
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{own.moments.samples:08d}"
    context.working(PHASE)
    with naming(path.with_suffix(".npz")), path.with_suffix(".npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    context.working(PHASE)
    draw_closed_form(path.with_suffix(".png"), arrays, {name: one.loss for name, one in reached.items()})
    journal.append("image", step=own.moments.samples, key=KEY, file=f"{KEY}/{path.name}.png")
