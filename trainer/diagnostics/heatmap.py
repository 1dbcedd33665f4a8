"""The picture of a correlation record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def draw_heatmap(path: Path, arrays: dict[str, np.ndarray], summary: dict[str, Any], *, title: str) -> None:
    """Write the matrix (the RMS of its blocks, if it was too large to keep) and its histogram as a PNG.

    The colours mean the same at every step, so that pictures of a run can be compared.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = arrays.get("correlation", arrays.get("block_rms"))
    assert matrix is not None
    # Places by number: a layout that fits itself to the labels draws them all twice, half of the time this takes.
    figure = Figure(figsize=(9.6, 4.6), dpi=100)
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.add_axes((0.07, 0.12, 0.37, 0.76)), figure.add_axes((0.6, 0.12, 0.37, 0.72))
    scale = figure.add_axes((0.455, 0.17, 0.015, 0.66))
    image = left.imshow(
        matrix.astype(np.float32),
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        interpolation="nearest",
        origin="upper",
    )
    figure.colorbar(image, cax=scale, ticks=[-1, -0.5, 0, 0.5, 1], format="%g")
    left.set_xlabel("feature of view b" if "correlation" in arrays else "feature of view b (blocks, RMS)")
    left.set_ylabel("feature of view a")
    edges = arrays["histogram_edges"]
    right.stairs(arrays["histogram"] / max(1, arrays["histogram"].sum()), edges, fill=True, color="0.6")
    diagonal = np.clip(arrays["diagonal"], -1, 1)  # rounding puts a perfect correlation above 1
    right.hist(diagonal, bins=edges.tolist(), weights=np.full(len(diagonal), 1 / len(diagonal)), alpha=0.6)
    right.set_yscale("log")
    right.set_ylim(1e-5, 1.5)
    right.set_xlabel("correlation (gray: off the diagonal, blue: on it)")
    noise = 1 / (float(arrays["n"]) - 1) ** 0.5
    right.set_title(
        f"diagonal mean {summary['diagonal']['mean']:.3f}\n"
        f"off-diagonal RMS {summary['off_diagonal_rms']:.3f}, of noise {noise:.3f}",
        fontsize=9,
    )
    figure.savefig(path)
