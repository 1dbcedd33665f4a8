"""The picture of a correlation record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FASTEST = 1
"""Of zlib: a third of the time of its usual level, for a tenth more bytes."""


def draw_heatmap(path: Path, arrays: dict[str, np.ndarray], summary: dict[str, Any], *, title: Sequence[str]) -> None:
    """Write the matrix (the RMS of its blocks, if it was too large to keep) above its histogram as a square PNG.

    `title` are lines beside the matrix. Colours mean the same at every step, so that pictures of a run can be compared.
    """
    blocks = "block_rms" in arrays
    matrix = arrays["block_rms" if blocks else "correlation"]
    order = arrays.get("order")
    if order is not None:
        matrix = matrix[np.ix_(order, order)]
    which = " (blocks, RMS)" if blocks else "" if order is None else " (by clusters)"
    edges = arrays["histogram_edges"]
    frame = _frame(len(matrix), which, tuple(edges.tolist()))
    noise = 1 / (float(arrays["n"]) - 1) ** 0.5
    said = [
        *title,
        f"diagonal {summary['diagonal']['mean']:.3f}",
        f"off-diagonal {summary['off_diagonal_rms']:.3f}",
        f"of noise {noise:.3f}",
    ]
    diagonal = np.clip(arrays["diagonal"], -1, 1)  # rounding puts a perfect correlation above 1
    frame.image.set_data(matrix.astype(np.float32))
    frame.words.set_text("\n".join(said))
    frame.gray.set_data(arrays["histogram"] / max(1, arrays["histogram"].sum()))
    frame.blue.set_data(np.histogram(diagonal, edges)[0] / len(diagonal))
    frame.save(path)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is the same in every picture of a run, drawn once: axes and their ticks take most of the time. What changes
    is drawn into a copy, and `lines`, the edges of the axes, over it."""

    canvas: Any
    background: Any
    lines: list[Any]
    image: Any
    words: Any
    gray: Any
    blue: Any

    def save(self, path: Path) -> None:
        """Write the frame with what stands in it now."""
        self.canvas.restore_region(self.background)
        for artist in (self.image, self.words, self.gray, self.blue, *self.lines):
            artist.draw(self.canvas.get_renderer())
        drawn = Image.fromarray(np.asarray(self.canvas.buffer_rgba()))
        drawn.convert("RGB").save(path, format="PNG", compress_level=FASTEST)


@lru_cache(maxsize=2)
def _frame(side: int, which: str, edges: tuple[float, ...]) -> _Frame:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Square, as the tiles of pages that show many pictures; the matrix in its upper half: a wide tile shows no more.
    figure = Figure(figsize=(9.6, 9.6), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    above, below = figure.add_axes((0.07, 0.565, 0.42, 0.42)), figure.add_axes((0.07, 0.07, 0.9, 0.41))
    image = above.imshow(
        np.zeros((side, side), dtype=np.float32),
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        interpolation="nearest",
        origin="upper",
    )
    figure.colorbar(image, cax=figure.add_axes((0.505, 0.565, 0.02, 0.42)), ticks=[-1, -0.5, 0, 0.5, 1], format="%g")
    above.set_xlabel(f"feature of view b{which}")
    above.set_ylabel("feature of view a")
    words = figure.text(0.59, 0.975, "", va="top", fontsize=22, linespacing=1.5)
    figure.text(0.59, 0.57, "diagonal: mean; off-diagonal, noise: RMS", fontsize=10)
    nothing = np.full(len(edges) - 1, 1e-9)
    gray = below.stairs(nothing, edges, fill=True, color="0.6")
    blue = below.stairs(nothing, edges, fill=True, color="C0", alpha=0.6)
    below.set_yscale("log")
    below.minorticks_off()
    below.yaxis.set_major_formatter("{x:g}")
    below.set_ylim(1e-5, 1.5)
    below.set_xlim(-1, 1)
    below.set_xlabel("correlation (gray: off the diagonal, blue: on it)")
    changing = (image, words, gray, blue)
    lines = [line for axes in (above, below) for line in axes.spines.values()]
    for artist in (*changing, *lines):
        artist.set_animated(True)
    canvas.draw()
    return _Frame(canvas, canvas.copy_from_bbox(figure.bbox), lines, *changing)
