"""Small runs of evaluations that train on labelled images, for tests: trees of colours, their specs, and stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import runs
from odd_trees import make_split

from barlow_lab.specs import LinearSpec, SemiSupervisedSpec, parse_spec
from trainer.evaluation import run_evaluation
from trainer.runtime.context import Context

EPOCHS, STEPS_PER_EPOCH = 3, 4
KINDS = ("linear", "semi_supervised")


def tree(folder: Path, *, train_unreadable: tuple[int, ...] = (), test_unreadable: tuple[int, ...] = ()) -> Path:
    """36 training and 15 test images of 8 px in three classes that their colour tells."""
    make_split(folder / "train", 36, train_unreadable)
    make_split(folder / "test", 15, test_unreadable)
    return folder


def spec(kind: str, **changes: Any) -> LinearSpec | SemiSupervisedSpec:
    """Colours through `tiny` in float64: 3 epochs of 4 steps, every metric at every step, a checkpoint every 3 steps
    and at the end of every epoch."""
    labels = {"labels": {"percent": 100}} if kind == "semi_supervised" else {}
    found = parse_spec(
        {
            "kind": kind,
            "data": {"name": "own"},
            "images": {"size": 8, "resize": 8},
            "backbone_from": {"random": 3},
            "backbone": {"name": "tiny"},
            "epochs": EPOCHS,
            "batch_size": 8,
            "precision": "fp64",
            "run": {"checkpoint": {"every_steps": 3}, "record": {"metrics_every_steps": 1}},
            **labels,
            **changes,
        }
    )
    assert isinstance(found, LinearSpec | SemiSupervisedSpec)
    return found


def context(folder: Path, data: Path | None = None, attempt: int = 1) -> Context:
    """The only rank of an attempt; `data` is the tree `own`."""
    found = runs.context(folder, attempt)
    if data is not None:
        found.inputs["data"] = {"own": {"format": "image_folder", "root": str(data)}}
    return found


def run(folder: Path, data: Path, kind: str, attempt: int = 1, **changes: Any) -> dict[str, Any] | None:
    """An attempt at the evaluation, in this process."""
    return run_evaluation(spec(kind, **changes), context(folder, data, attempt))


class StopAfter:
    """A stop request that is heard after `units` finished units."""

    def __init__(self, units: int) -> None:
        self._units = units
        self.reason: str | None = None

    def requested(self, step: int) -> bool:
        if step >= self._units:
            self.reason = "pause"
        return step >= self._units


class Killed(Exception):
    """The attempt ends without another word."""
