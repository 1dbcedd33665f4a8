"""The record of one cross-correlation matrix: a file to compute with, a summary to query, a picture to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from barlow_lab.disk import naming
from trainer.diagnostics.correlation_survey import BINS, Survey, survey
from trainer.diagnostics.heatmap import draw_heatmap
from trainer.objectives.barlow_twins import noise_floor

NAMED_FEATURES = 20


def write_correlation_record(
    folder: Path,
    z_a_nd: Tensor,
    z_b_nd: Tensor,
    *,
    step: int,
    off_diagonal_weight: float | None,
    loss: float,
    tick: Callable[[], None],
) -> dict[str, Any]:
    """Write `folder`/step-XXXXXXXX.npz and .png, and return the data of the `correlation` event.

    `z_a_nd`, `z_b_nd` are the embeddings of the two views of the whole batch at `step`, (N, d), on any device; `loss`
    goes into the title of the picture; `off_diagonal_weight` is the objective's; `tick` is called after each part of
    the work.

    Raises:
        ValueError: the two shapes differ, or there is a single sample.
    """
    folder.mkdir(exist_ok=True)
    name = f"step-{step:08d}"
    seen = survey(z_a_nd, z_b_nd, tick)
    summary = summarise(seen, off_diagonal_weight=off_diagonal_weight)
    arrays = record_arrays(seen, step=step)
    tick()
    with naming(folder / f"{name}.npz"), (folder / f"{name}.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    tick()
    draw_heatmap(folder / f"{name}.png", arrays, summary, title=(f"step {step:,}", f"loss {loss:.4g}"))
    return {
        "file": f"{folder.name}/{name}.npz",
        "image": f"{folder.name}/{name}.png",
        "dim": len(seen.diagonal_d),
        "n": seen.samples,
        "floor": noise_floor(len(seen.diagonal_d), seen.samples),
        "summary": summary,
    }


def record_arrays(seen: Survey, *, step: int) -> dict[str, np.ndarray]:
    """What the .npz holds.

    `diagonal` (d), `row_energy` (d; sum over j != i of C_ij^2), `histogram` and `histogram_edges` of the off-diagonal
    entries, `n`, `step`, `floor`, and `correlation` (d, d) in float16 up to d = 1024; beyond it `block_mean`,
    `block_rms` and `block_maximum` (of absolute values), (256, 256) each, in float16: 0.35 MB in all at d = 8192.
    """
    arrays: dict[str, Any] = {
        "diagonal": seen.diagonal_d.astype(np.float32),
        "row_energy": seen.row_energy_d.astype(np.float32),
        "histogram": seen.histogram,
        "histogram_edges": _edges(),
        "n": np.int64(seen.samples),
        "step": np.int64(step),
        "floor": np.float64(noise_floor(len(seen.diagonal_d), seen.samples)),
    }
    if seen.full_dd is not None:
        return {**arrays, "correlation": seen.full_dd}
    return {**arrays, **{f"block_{name}": values.astype(np.float16) for name, values in seen.blocks.items()}}


def summarise(seen: Survey, *, off_diagonal_weight: float | None) -> dict[str, Any]:
    """The matrix in numbers that JSON holds.

    `symmetry_defect` = |C - C^T| / (sqrt(2) |C without its diagonal|) in Frobenius norms: 0 for a symmetric matrix,
    1 where C_ij and C_ji have nothing to do with each other. `top_pairs` are the largest off-diagonal entries, by
    absolute value: feature i of view a with feature j of view b. A dead feature is one whose row and column are 0.
    `off_diagonal_excess` is there only for an objective that weighs the squares, by `off_diagonal_weight`.
    """
    diagonal = seen.diagonal_d
    dim = len(diagonal)
    energy = float(seen.row_energy_d.sum())
    floor = noise_floor(dim, seen.samples)
    excess = None if off_diagonal_weight is None else off_diagonal_weight * (energy - floor)
    return {
        "diagonal": {"mean": float(diagonal.mean()), "min": float(diagonal.min()), "max": float(diagonal.max())},
        "off_diagonal": energy,
        "off_diagonal_rms": (energy / (dim * (dim - 1))) ** 0.5,
        **({} if excess is None else {"off_diagonal_excess": excess}),
        "symmetry_defect": (seen.asymmetry / (2 * energy)) ** 0.5 if energy > 0 else 0.0,
        "top_pairs": [{"i": i, "j": j, "value": value} for i, j, value in seen.top_pairs],
        "dead_features": {"count": len(seen.dead), "first": seen.dead[:NAMED_FEATURES].tolist()},
        "histogram": {"counts": seen.histogram.tolist(), "edges": [round(float(e), 6) for e in _edges()]},
    }


def _edges() -> np.ndarray:
    return np.linspace(-1.0, 1.0, BINS + 1)
