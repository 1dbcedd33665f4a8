"""The run of the process tests: 50 steps in float64, a checkpoint every 7, a correlation record every 5 epochs.

The checkpoints of steps 20 and 40 are milestones, so they stay."""

import json
import time
from pathlib import Path

import runs

SPEC = runs.spec(
    precision="fp64",
    batch_size=32,
    epochs=10,
    optimizer={"name": "lars", "bias_learning_rate": 0.01},
    run={
        "checkpoint": {"every_steps": 7, "every_epochs": 4, "milestone_every_epochs": 4},
        "record": {"metrics_every_steps": 1, "correlation_every_epochs": 5},
    },
)
STEPS = 50


def command(folder: Path) -> list[object]:
    """What starts it by hand, in `folder`/run."""
    (folder / "spec.yaml").write_text(json.dumps(SPEC.resolved()))
    return ["-m", "trainer", folder / "spec.yaml", "--run-dir", folder / "run"]


def wait_for(run: Path, kind: str, step: int = 0, attempt: int = 1) -> None:
    """Wait until an attempt has journalled such an event."""
    deadline = time.monotonic() + 100
    while not any((e.step or 0) >= step for e in runs.events(run, attempt, kind)):
        assert time.monotonic() < deadline, f"there was no {kind} of step {step}"
        time.sleep(0.02)
