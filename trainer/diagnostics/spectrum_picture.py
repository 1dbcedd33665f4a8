"""The picture of the spectra of a correlation record, and of what is off its diagonal beside chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainer.diagnostics.spectra import independent_spectrum

LINES = {"spectrum": "C (singular values)", "spectrum_a": "view a with itself", "spectrum_b": "view b with itself"}
SHOWN = 1e-4
"""The least value that is drawn: below it float32 embeddings hold rounding."""


def draw_spectrum(path: Path, *, arrays: dict[str, np.ndarray], summary: dict[str, Any]) -> None:
    """Write the spectra above the histogram of the off-diagonal entries, each beside what independent features give, as
    a square PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    samples, features = int(arrays["n"]), len(arrays["diagonal"])
    figure = Figure(figsize=(9.6, 9.6), dpi=100)
    FigureCanvasAgg(figure)
    above, below = figure.add_axes((0.09, 0.56, 0.88, 0.39)), figure.add_axes((0.09, 0.07, 0.88, 0.37))
    for (key, label), colour in zip(LINES.items(), ("C3", "C0", "C2"), strict=True):
        values = arrays[key][arrays[key] > SHOWN]
        above.plot(np.arange(1, len(values) + 1), values, color=colour, label=label, linewidth=2)
    chance = independent_spectrum(samples, features)
    above.plot(np.arange(1, len(chance) + 1), chance, "--", color="0.4", label="independent features, with themselves")
    above.set_yscale("log")
    above.minorticks_off()
    above.yaxis.set_major_formatter("{x:g}")
    above.set_ylim(SHOWN, features * 1.5)
    above.set_xlim(1, max(2, min(samples - 1, features)))
    above.set_xlabel("rank")
    above.legend(loc="upper right", fontsize=11)
    above.set_title(f"step {int(arrays['step']):,}: spectra of {features:,} features, {samples:,} images", fontsize=14)
    counts, edges = arrays["scaled_histogram"], arrays["scaled_histogram_edges"]
    below.stairs(counts / max(1, counts.sum()), edges, fill=True, color="0.6", label="entries off the diagonal of C")
    below.stairs(_of_chance(edges, samples), edges, color="C3", linewidth=2, label="independent features")
    below.set_yscale("log")
    below.minorticks_off()
    below.yaxis.set_major_formatter("{x:g}")
    below.set_ylim(1e-5, 1.5)
    below.set_xlim(edges[0], edges[-1])
    below.set_xlabel(f"correlation in deviations of chance, 1 / sqrt(N - 1) = {1 / (samples - 1) ** 0.5:.3g}")
    below.legend(loc="upper right", fontsize=11)
    defect, floor = summary["symmetry_defect"], summary["symmetry_defect_floor"]
    below.set_title(f"symmetry defect {defect:.3f}, of independent features {floor:.3f}", fontsize=14)
    figure.savefig(path)


def _of_chance(edges: np.ndarray, samples: int) -> np.ndarray:
    """Shares of the bins by the law of a correlation r of independent Gaussian features: (1 - r^2)^((N - 4) / 2)."""
    middle = (edges[1:] + edges[:-1]) / 2 / (samples - 1) ** 0.5
    inside = np.clip(1 - middle**2, 0, None)
    share: np.ndarray = np.where(inside > 0, inside ** max(0.0, (samples - 4) / 2), 0)
    share /= share.sum()
    return share
