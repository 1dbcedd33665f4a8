"""The record of one cross-correlation matrix: a file to compute with, a summary to query, a picture to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainer.diagnostics.heatmap import draw_heatmap
from trainer.disk import naming
from trainer.objectives.barlow_twins import noise_floor

FULL_UP_TO = 1024
BLOCKS = 256
BINS = 41
TOP_PAIRS = 10
NAMED_FEATURES = 20


def write_correlation_record(
    folder: Path,
    correlation_dd: np.ndarray,
    *,
    samples: int,
    step: int,
    lambda_: float,
    loss: float,
    tick: Callable[[], None],
) -> dict[str, Any]:
    """Write `folder`/step-XXXXXXXX.npz and .png, and return the data of the `correlation` event (DESIGN 7.11).

    `correlation_dd` is the matrix of `samples` samples at `step`; `loss` goes into the title of the picture;
    `tick` is called after each part of the work.
    """
    folder.mkdir(exist_ok=True)
    name = f"step-{step:08d}"
    summary = summarise(correlation_dd, samples=samples, lambda_=lambda_)
    tick()
    arrays = record_arrays(correlation_dd, samples=samples, step=step)
    tick()
    with naming(folder / f"{name}.npz"), (folder / f"{name}.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    tick()
    draw_heatmap(folder / f"{name}.png", arrays, summary, title=f"step {step}   loss {loss:.4g}")
    return {
        "file": f"{folder.name}/{name}.npz",
        "image": f"{folder.name}/{name}.png",
        "dim": correlation_dd.shape[0],
        "n": samples,
        "floor": noise_floor(correlation_dd.shape[0], samples),
        "summary": summary,
    }


def record_arrays(correlation_dd: np.ndarray, *, samples: int, step: int) -> dict[str, np.ndarray]:
    """What the .npz holds.

    `diagonal` (d), `row_energy` (d; sum over j != i of C_ij^2), `histogram` and `histogram_edges` of the off-diagonal
    entries, `n`, `step`, `floor`, and `correlation` (d, d) in float16 up to d = 1024; beyond it `block_mean`,
    `block_rms` and `block_maximum` (of absolute values), (256, 256) each.
    """
    dim = correlation_dd.shape[0]
    off_diagonal = _without_diagonal(correlation_dd)
    counts, edges = _histogram(correlation_dd)
    arrays = {
        "diagonal": correlation_dd.diagonal().astype(np.float32),
        "row_energy": np.square(off_diagonal, dtype=np.float64).sum(1).astype(np.float32),
        "histogram": counts,
        "histogram_edges": edges,
        "n": np.int64(samples),
        "step": np.int64(step),
        "floor": np.float64(noise_floor(dim, samples)),
    }
    if dim <= FULL_UP_TO:
        return {**arrays, "correlation": correlation_dd.astype(np.float16)}
    starts = np.arange(BLOCKS) * dim // BLOCKS
    sizes = np.diff(np.append(starts, dim))
    sizes_bb = sizes[:, None] * sizes
    return {
        **arrays,
        "block_mean": (_blocks(np.add, correlation_dd, starts) / sizes_bb).astype(np.float32),
        "block_rms": np.sqrt(_blocks(np.add, np.square(correlation_dd), starts) / sizes_bb).astype(np.float32),
        "block_maximum": _blocks(np.maximum, np.abs(correlation_dd), starts).astype(np.float32),
    }


def summarise(correlation_dd: np.ndarray, *, samples: int, lambda_: float) -> dict[str, Any]:
    """The matrix in numbers that JSON holds.

    `symmetry_defect` = |C - C^T| / (sqrt(2) |C without its diagonal|) in Frobenius norms: 0 for a symmetric matrix,
    1 where C_ij and C_ji have nothing to do with each other. `top_pairs` are the largest off-diagonal entries, by
    absolute value: feature i of view a with feature j of view b. A dead feature is one whose row and column are 0.
    """
    dim = correlation_dd.shape[0]
    diagonal = correlation_dd.diagonal()
    off_diagonal = _without_diagonal(correlation_dd)
    energy = float(np.square(off_diagonal, dtype=np.float64).sum())
    asymmetry = float(np.square(correlation_dd - correlation_dd.T, dtype=np.float64).sum())
    dead = np.flatnonzero(~(correlation_dd.any(0) | correlation_dd.any(1)))
    counts, edges = _histogram(correlation_dd)
    return {
        "diagonal": {"mean": float(diagonal.mean()), "min": float(diagonal.min()), "max": float(diagonal.max())},
        "off_diagonal": energy,
        "off_diagonal_rms": (energy / (dim * (dim - 1))) ** 0.5,
        "off_diagonal_excess": lambda_ * (energy - noise_floor(dim, samples)),
        "symmetry_defect": (asymmetry / (2 * energy)) ** 0.5 if energy > 0 else 0.0,
        "top_pairs": [{"i": i, "j": j, "value": float(off_diagonal[i, j])} for i, j in _top_pairs(off_diagonal)],
        "dead_features": {"count": len(dead), "first": dead[:NAMED_FEATURES].tolist()},
        "histogram": {"counts": counts.tolist(), "edges": [round(float(e), 6) for e in edges]},
    }


def _without_diagonal(correlation_dd: np.ndarray) -> np.ndarray:
    out = correlation_dd.copy()
    np.fill_diagonal(out, 0)
    return out


def _histogram(correlation_dd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    off = correlation_dd[~np.eye(correlation_dd.shape[0], dtype=bool)]
    return np.histogram(np.clip(off, -1, 1), bins=BINS, range=(-1.0, 1.0))


def _top_pairs(off_diagonal: np.ndarray) -> list[tuple[int, int]]:
    dim = off_diagonal.shape[0]
    flat = np.abs(off_diagonal).ravel()
    count = min(TOP_PAIRS, dim * (dim - 1))
    largest = np.argpartition(-flat, count - 1)[:count]
    ranked = sorted(largest.tolist(), key=lambda place: (-flat[place], place))
    return [divmod(place, dim) for place in ranked if flat[place] > 0]


def _blocks(reduce: np.ufunc, values_dd: np.ndarray, starts: np.ndarray) -> np.ndarray:
    out: np.ndarray = reduce.reduceat(reduce.reduceat(values_dd, starts, axis=0), starts, axis=1)
    return out
