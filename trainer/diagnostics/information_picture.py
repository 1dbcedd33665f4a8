"""The picture of the information plane: the way of backbone and embedding through it, and informations by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PARTS = ("backbone", "embedding")
COLOURS = {"backbone": "C0", "embedding": "C3"}


def draw_information_plane(path: Path, *, way: Sequence[dict[str, float]]) -> None:
    """Write the plane of H(Z|X) and H(Z) above I(Z;X) and I(A;B) by step, as a square PNG. `way` holds the metrics of
    each look, in the order of steps, and `step`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 9.6), dpi=100)
    FigureCanvasAgg(figure)
    above, below = figure.add_axes((0.09, 0.47, 0.88, 0.48)), figure.add_axes((0.09, 0.07, 0.88, 0.32))
    steps = _series(way, "step")
    for part in PARTS:
        x, y = _series(way, f"conditional_entropy_{part}"), _series(way, f"entropy_{part}")
        if np.isnan(x).all():
            continue
        colour = COLOURS[part]
        above.plot(x, y, "-", color=colour, linewidth=1.5, alpha=0.6)
        above.plot(x, y, ".", color=colour, markersize=5)
        above.plot(x[:1], y[:1], "o", color=colour, fillstyle="none", markersize=11, markeredgewidth=2)
        above.plot(x[-1:], y[-1:], "o", color=colour, markersize=11, label=part)
        below.plot(steps, _series(way, f"information_{part}"), ".-", color=colour, label=f"I(Z;X), {part}")
        shared = _series(way, f"view_information_{part}")
        if not np.isnan(shared).all():
            below.plot(steps, shared, ".--", color=colour, label=f"I(A;B), {part}")
    _lines_of_equal_information(above)
    above.set_xlabel("H(Z|X), what augmentation leaves open, in nats")
    above.set_ylabel("H(Z), nats")
    above.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=11, frameon=False)
    title = f"information plane up to step {int(steps[-1]):,} (ring: step {int(steps[0]):,})"
    above.set_title(title, loc="left", fontsize=14)
    below.axhline(0, color="0.8", linewidth=1, zorder=0)
    below.set_xlabel("step")
    below.set_ylabel("nats")
    below.legend(loc="upper left", fontsize=11, ncols=2)
    below.margins(y=0.25)
    figure.savefig(path)


def _lines_of_equal_information(axes: Any) -> None:
    """Gray lines on which H(Z) - H(Z|X) is the same, each with its I."""
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    width = max(right - left, high - low, 1.0)
    spacing = 10.0 ** np.floor(np.log10(width)) / (1 if width / 10.0 ** np.floor(np.log10(width)) > 3 else 2)
    first, last = np.ceil((low - right) / spacing), np.floor((high - left) / spacing)
    for count in np.arange(max(first, 0), last + 1):
        information = count * spacing
        axes.plot([left, right], [left + information, right + information], color="0.8", linewidth=1, zorder=0)
        x, y = (left, left + information) if left + information > low else (low - information, low)
        if left <= x <= right - 0.1 * (right - left) and low <= y <= high - 0.05 * (high - low):
            axes.annotate(f"I = {information:g}", (x, y), (4, 4), textcoords="offset points", color="0.5", fontsize=10)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def _series(way: Sequence[dict[str, float]], name: str) -> np.ndarray:
    return np.array([point.get(name, np.nan) for point in way], dtype=float)
