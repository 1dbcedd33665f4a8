"""The picture of a closed form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

TITLES = {"own": "C on the images of S", "held_out": "C on held-out images"}


def draw_closed_form(path: Path, arrays: Mapping[str, np.ndarray], losses: Mapping[str, float]) -> None:
    """Write C on both sets of images above the spectrum of S and the symmetry defect by the number of images, as a
    square PNG. `arrays` has `own`, `held_out`, `eigenvalues`, `projector` and `symmetry`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 9.6), dpi=100)
    FigureCanvasAgg(figure)
    kept = len(arrays["projector"])
    for left, (name, title) in zip((0.07, 0.53), TITLES.items(), strict=True):
        axes = figure.add_axes((left, 0.53, 0.4, 0.4))
        axes.imshow(arrays[name], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(f"{title}: loss {losses[name]:.3g}", fontsize=14)
        axes.set_xlabel(f"{kept:,} directions kept")
    below = figure.add_axes((0.09, 0.07, 0.38, 0.36))
    values = arrays["eigenvalues"]
    positive = values[values > 0]
    below.plot(np.arange(1, len(positive) + 1), positive, linewidth=2)
    below.axvline(kept, color="0.4", linestyle="--", label=f"kept: {kept:,} of {len(values):,}")
    below.set_yscale("log")
    below.set_xlabel("rank")
    below.set_title("eigenvalues of S above 0", fontsize=14)
    below.legend(loc="upper right", fontsize=11)
    beside = figure.add_axes((0.59, 0.07, 0.38, 0.36))
    images, defect, floor = arrays["symmetry"].T
    beside.plot(images, defect, "o-", color="C3", linewidth=2, label="symmetry defect of the features")
    beside.plot(images, floor, "--", color="0.4", linewidth=2, label="of a symmetric population")
    beside.set_xscale("log", base=2)
    beside.set_yscale("log")
    beside.set_xlabel("images")
    beside.set_title("symmetry by the number of images", fontsize=14)
    beside.legend(loc="lower left", fontsize=11)
    figure.savefig(path)
