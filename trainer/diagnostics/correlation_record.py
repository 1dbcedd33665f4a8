"""The record of one cross-correlation matrix: a file to compute with, a summary to query, a picture to look at.

Shape suffixes: n samples of this rank, d features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from torch import Tensor

from barlow_lab.disk import naming
from barlow_lab.specs.common import RecordSpec
from trainer.diagnostics.base import BatchDiagnostic, BatchSeen, Diagnosed, Records
from trainer.diagnostics.correlation_statistics import (
    BINS,
    SCALED_BINS,
    SCALED_EDGE,
    CorrelationStatistics,
    correlation_statistics,
)
from trainer.diagnostics.feature_order import by_clusters
from trainer.diagnostics.heatmap import draw_heatmap
from trainer.diagnostics.spectrum_picture import draw_spectrum
from trainer.evaluation.view_moments import symmetry_defect
from trainer.objectives.correlation import noise_floor

NAMED_FEATURES = 20


class CorrelationRecord(BatchDiagnostic):
    """Records the cross-correlation matrix of the batch every `correlation_every_epochs` and at the end, and with the
    first update as that of step 0; with it the picture `spectrum` where it is asked for."""

    name = "correlation record"
    picture_keys = ("correlation", "spectrum")

    def __init__(self, run: Diagnosed) -> None:
        self._plan = run.plan
        self._context = run.context
        self._asked = run.spec.run.record
        self._off_diagonal_weight = run.objective.off_diagonal_weight

    @classmethod
    def of(cls, run: Diagnosed) -> Self:
        return cls(run)

    def due(self, step: int) -> bool:
        return bool(self._plan.correlations_due(step))

    def observe(self, seen: BatchSeen, records: Records) -> None:
        """Record the matrix; it is not of a step whose embeddings are not finite, as fp16 may skip one, which is warned
        of."""
        context, tick = self._context, partial(self._context.working, self.name)
        assert context.journal is not None, "rank 0 alone observes"
        for step in self._plan.correlations_due(seen.step):
            tick()
            if not (seen.z_a_nd.isfinite().all() and seen.z_b_nd.isfinite().all()):
                context.warn("no correlation record: this step was skipped, as its embeddings are not finite")
                continue
            record, arrays = write_correlation_record(
                context.attempt_folder / "correlation",
                seen.z_a_nd,
                seen.z_b_nd,
                step=step,
                off_diagonal_weight=self._off_diagonal_weight,
                loss=float(seen.terms.loss.detach()),
                tick=tick,
                asked=self._asked,
            )
            context.journal.append("correlation", step=step, epoch=self._plan.epoch(step), **record)
            if self._asked.spectra:
                tick()
                records.at(step).picture("spectrum", partial(draw_spectrum, arrays=arrays, summary=record["summary"]))


def write_correlation_record(
    folder: Path,
    z_a_nd: Tensor,
    z_b_nd: Tensor,
    *,
    step: int,
    off_diagonal_weight: float | None,
    loss: float,
    tick: Callable[[], None],
    asked: RecordSpec,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Write `folder`/step-XXXXXXXX.npz and .png; returns the data of the `correlation` event, and what the .npz holds.

    `z_a_nd`, `z_b_nd` are the embeddings of the two views of the whole batch at `step`, (N, d), on any device; `loss`
    goes into the title of the picture; `off_diagonal_weight` is the objective's; `tick` is called after each part of
    the work; `asked` says whether the whole matrix is kept and how the picture orders the features.

    Raises:
        ValueError: the two shapes differ, or there is a single sample.
    """
    folder.mkdir(exist_ok=True)
    name = f"step-{step:08d}"
    found = correlation_statistics(z_a_nd, z_b_nd, tick, keep_whole=asked.whole_correlation)
    summary = summarise(found, off_diagonal_weight=off_diagonal_weight)
    arrays = record_arrays(found, step=step, order=asked.heatmap_order)
    tick()
    with naming(folder / f"{name}.npz"), (folder / f"{name}.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    tick()
    draw_heatmap(folder / f"{name}.png", arrays, summary, title=(f"step {step:,}", f"loss {loss:.4g}"))
    event = {
        "file": f"{folder.name}/{name}.npz",
        "image": f"{folder.name}/{name}.png",
        "dim": len(found.diagonal_d),
        "n": found.samples,
        "floor": noise_floor(len(found.diagonal_d), found.samples),
        "summary": summary,
    }
    return event, arrays


def record_arrays(
    found: CorrelationStatistics, *, step: int, order: Literal["index", "clusters"] = "index"
) -> dict[str, np.ndarray]:
    """What the .npz holds.

    `diagonal` (d), `row_energy` (d; sum over j != i of C_ij^2), `histogram` and `histogram_edges` of the off-diagonal
    entries, `scaled_histogram` and `scaled_histogram_edges` of them times the root of n - 1, `spectrum`, `spectrum_a`
    and `spectrum_b` (trainer.diagnostics.spectra), `n`, `step`, `floor`, and `correlation` (d, d) in float16 up to
    d = 1024, or where it is asked for; beyond it `block_mean`, `block_rms` and `block_maximum` (of absolute values),
    (256, 256) each, in float16: 0.4 MB in all at d = 8192 without the whole. By `clusters`, up to d = 1024, `order`,
    the features as a heatmap is to show them.
    """
    arrays: dict[str, Any] = {
        "diagonal": found.diagonal_d.astype(np.float32),
        "row_energy": found.row_energy_d.astype(np.float32),
        "histogram": found.histogram,
        "histogram_edges": _edges(),
        "scaled_histogram": found.scaled_histogram,
        "scaled_histogram_edges": np.linspace(-SCALED_EDGE, SCALED_EDGE, SCALED_BINS + 1),
        **found.spectra,
        "n": np.int64(found.samples),
        "step": np.int64(step),
        "floor": np.float64(noise_floor(len(found.diagonal_d), found.samples)),
    }
    if found.full_dd is not None:
        arrays["correlation"] = found.full_dd
        if order == "clusters" and not found.blocks:
            arrays["order"] = by_clusters(found.full_dd)
    return {**arrays, **{f"block_{name}": values.astype(np.float16) for name, values in found.blocks.items()}}


def summarise(found: CorrelationStatistics, *, off_diagonal_weight: float | None) -> dict[str, Any]:
    """The matrix in numbers that JSON holds.

    `symmetry_defect` is that of trainer.evaluation.view_moments. `symmetry_defect_floor` is what it would be of
    independent features: with the correlation r_i of feature i between the views, |C - C^T|^2 is expected to be
    2 / (N - 1) sum_{i != j} (1 - r_i r_j), so a batch is never symmetric, though the population may be. `top_pairs`
    are the largest off-diagonal entries, by absolute value: feature i of view a with feature j of view b. A dead
    feature is one whose row and column are 0. `off_diagonal_excess` is there only for an objective that weighs the
    squares, by `off_diagonal_weight`.
    """
    diagonal = found.diagonal_d
    dim = len(diagonal)
    energy = float(found.row_energy_d.sum())
    floor = noise_floor(dim, found.samples)
    alive = dim - len(found.dead)
    pairs = alive * (alive - 1) - float(diagonal.sum(dtype=float) ** 2 - np.square(diagonal, dtype=float).sum())
    asymmetry_floor = 2 / (found.samples - 1) * max(0.0, pairs)
    excess = None if off_diagonal_weight is None else off_diagonal_weight * (energy - floor)
    return {
        "diagonal": {"mean": float(diagonal.mean()), "min": float(diagonal.min()), "max": float(diagonal.max())},
        "off_diagonal": energy,
        "off_diagonal_rms": (energy / (dim * (dim - 1))) ** 0.5,
        **({} if excess is None else {"off_diagonal_excess": excess}),
        "symmetry_defect": symmetry_defect(found.asymmetry, energy),
        "symmetry_defect_floor": symmetry_defect(asymmetry_floor, energy),
        "top_pairs": [{"i": i, "j": j, "value": value} for i, j, value in found.top_pairs],
        "dead_features": {"count": len(found.dead), "first": found.dead[:NAMED_FEATURES].tolist()},
        "histogram": {"counts": found.histogram.tolist(), "edges": [round(float(e), 6) for e in _edges()]},
    }


def _edges() -> np.ndarray:
    return np.linspace(-1.0, 1.0, BINS + 1)
