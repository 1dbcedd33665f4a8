"""The picture of a correlation record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def draw_heatmap(path: Path, arrays: dict[str, np.ndarray], summary: dict[str, Any], *, title: Sequence[str]) -> None:
    """Write the matrix (the RMS of its blocks, if it was too large to keep) above its histogram as a square PNG.

    `title` are lines beside the matrix. Colours mean the same at every step, so that pictures of a run can be compared.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = "block_rms" in arrays
    matrix = arrays["block_rms" if blocks else "correlation"]
    order = arrays.get("order")
    if order is not None:
        matrix = matrix[np.ix_(order, order)]
    which = " (blocks, RMS)" if blocks else "" if order is None else " (by clusters)"
    # Square, as the tiles of pages that show many pictures; the matrix in its upper half: a wide tile shows no more.
    # Places by number: a layout that fits itself to the labels draws them all twice, half of the time this takes.
    figure = Figure(figsize=(9.6, 9.6), dpi=100)
    FigureCanvasAgg(figure)
    above, below = figure.add_axes((0.07, 0.565, 0.42, 0.42)), figure.add_axes((0.07, 0.07, 0.9, 0.41))
    image = above.imshow(
        matrix.astype(np.float32),
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        interpolation="nearest",
        origin="upper",
    )
    figure.colorbar(image, cax=figure.add_axes((0.505, 0.565, 0.02, 0.42)), ticks=[-1, -0.5, 0, 0.5, 1], format="%g")
    above.set_xlabel(f"feature of view b{which}")
    above.set_ylabel("feature of view a")
    noise = 1 / (float(arrays["n"]) - 1) ** 0.5
    said = [
        *title,
        f"diagonal {summary['diagonal']['mean']:.3f}",
        f"off-diagonal {summary['off_diagonal_rms']:.3f}",
        f"of noise {noise:.3f}",
    ]
    figure.text(0.59, 0.975, "\n".join(said), va="top", fontsize=22, linespacing=1.5)
    figure.text(0.59, 0.57, "diagonal: mean; off-diagonal, noise: RMS", fontsize=10)
    edges = arrays["histogram_edges"]
    below.stairs(arrays["histogram"] / max(1, arrays["histogram"].sum()), edges, fill=True, color="0.6")
    diagonal = np.clip(arrays["diagonal"], -1, 1)  # rounding puts a perfect correlation above 1
    below.stairs(np.histogram(diagonal, edges)[0] / len(diagonal), edges, fill=True, color="C0", alpha=0.6)
    below.set_yscale("log")
    below.minorticks_off()  # these, and powers in mathematical script, are a third of the time this takes
    below.yaxis.set_major_formatter("{x:g}")
    below.set_ylim(1e-5, 1.5)
    below.set_xlim(-1, 1)
    below.set_xlabel("correlation (gray: off the diagonal, blue: on it)")
    figure.savefig(path)
