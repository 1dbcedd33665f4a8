"""The picture of the scores of invariance: each transformation beside its shuffled score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def draw_scores(path: Path, names: Sequence[str], scores: Mapping[str, float], *, steps: int) -> None:
    """Write bars of `ris_NAME` beside `shuffled_NAME`, and of both means, in percent, as a square PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 9.6), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.09, 0.88, 0.83))
    places = np.arange(len(names) + 1)
    for score, colour, side, label in (
        ("ris", "C0", -0.2, "trajectories"),
        ("shuffled", "0.7", 0.2, "images exchanged among trajectories"),
    ):
        values = [scores[f"{score}_{name}"] for name in names] + [scores[score]]
        bars = axes.bar(places + side, values, 0.38, color=colour, label=label)
        axes.bar_label(bars, fmt="{:.1f}", fontsize=12)
    axes.axvline(len(names) - 0.5, color="0.8", linewidth=1)
    axes.set_xticks(places, [*names, "mean"], fontsize=14)
    axes.set_ylim(0, 118)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("representation invariance score, %", fontsize=13)
    axes.set_title(f"Invariance along trajectories of {steps} images", fontsize=15)
    axes.legend(loc="upper right", fontsize=12)
    figure.savefig(path)
