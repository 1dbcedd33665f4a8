"""Draw the cross-correlation matrix of a run at its start, on the way and at its end.

python docs/images/correlation_over_training.py RUN_DIRECTORY [PICTURE]
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def main(run: Path, picture: Path) -> None:
    records = sorted(run.glob("attempts/*/correlation/*.npz"), key=lambda file: file.name)
    if not records:
        raise SystemExit(f"{run} holds no attempts/*/correlation/*.npz; name the run directory of a pretraining")
    chosen = [records[0], records[len(records) // 8], records[-1]]
    epochs = {
        event["step"]: event["epoch"]
        for journal in run.glob("attempts/*/journal.jsonl")
        for event in map(json.loads, journal.open())
        if event["kind"] == "correlation"
    }
    figure = Figure(figsize=(10.5, 3.7), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(chosen))
    for axis, file in zip(axes, chosen, strict=True):
        record = np.load(file)
        step = int(record["step"])
        image = axis.imshow(
            record["correlation"].astype(np.float32),
            cmap="RdBu_r",
            vmin=-1,
            vmax=1,
            interpolation="nearest",
        )
        when = f"step {step}" if step == 0 else f"step {step} (epoch {epochs[step]})"
        axis.set_title(f"{when}: diagonal mean {record['diagonal'].mean():.2f}", fontsize=10)
        axis.set_xlabel("feature of view b")
    axes[0].set_ylabel("feature of view a")
    figure.colorbar(image, ax=axes, ticks=[-1, -0.5, 0, 0.5, 1], format="%g", shrink=0.9)
    figure.savefig(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "correlation-over-training.png"))
