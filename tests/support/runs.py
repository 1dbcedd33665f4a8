"""Small runs for tests: their specs, their contexts in this process, and what they left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from barlow_lab.journal import Journal, JournalEvent, read_events
from barlow_lab.run_folder import CONTROL, JOURNAL, attempt_folder
from barlow_lab.specs import PretrainSpec
from trainer.runtime.context import Context
from trainer.runtime.stopping import StopRequests

CLOCKED = {"images_per_second", "data_seconds", "step_seconds"}
"""Metrics of the clock: they differ from run to run."""


def spec(**changes: Any) -> PretrainSpec:
    """Digits through `tiny`, 5 steps an epoch, a checkpoint every 3 steps, every metric at every step."""
    return PretrainSpec.model_validate(
        {
            "data": {"name": "digits", "limit": 160},
            "views": {"preset": "small_images", "size": 12},
            "backbone": {"name": "tiny"},
            "projector": {"widths": [24, 16]},
            "optimizer": {"name": "adamw"},
            "epochs": 4,
            "batch_size": 32,
            "run": {
                "checkpoint": {"every_steps": 3},
                "record": {"metrics_every_steps": 1, "correlation_every_epochs": 10},
            },
            **changes,
        }
    )


def context(run_folder: Path, attempt: int = 1, *, rank: int = 0, world_size: int = 1) -> Context:
    """A rank of an attempt, in this process; the only one unless said."""
    folder = attempt_folder(run_folder, attempt)
    folder.mkdir(parents=True, exist_ok=world_size > 1)
    device = torch.device("cpu")
    return Context(
        rank=rank,
        world_size=world_size,
        device=device,
        threads=1,
        run_folder=run_folder,
        attempt_folder=folder,
        attempt=attempt,
        inputs={"backbone": None, "data": {}},
        journal=Journal(folder / JOURNAL) if rank == 0 else None,
        stop=StopRequests(folder / CONTROL, rank=rank, device=device),
    )


def events(run_folder: Path, attempt: int = 1, kind: str | None = None) -> list[JournalEvent]:
    """The journal of an attempt."""
    every = read_events(attempt_folder(run_folder, attempt) / JOURNAL)
    return [event for event in every if kind in (None, event.kind)]


def series(run_folder: Path) -> dict[tuple[str, int], float]:
    """(metric, step) → value over all attempts, an attempt's lines counting up to its successor's resume step.

    Fails if a point is there twice; but for those of step 0, which an attempt that finds no checkpoint records again,
    of the same bits. Metrics of the clock are left out.
    """
    points: dict[tuple[str, int], float] = {}
    for folder, last in counted(run_folder):
        for step, name, value in _points(events(run_folder, int(folder.name), "metrics")):
            if last is None or step <= last:
                again = step == 0 and points.get((name, step)) == value
                assert again or (name, step) not in points, f"{name} at step {step} is there twice"
                points[name, step] = value
    return points


def correlations(run_folder: Path) -> dict[int, tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """step → (event, content of its .npz) over all attempts, by the rule of `series`; fails if one is there twice."""
    records: dict[int, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}
    for folder, last in counted(run_folder):
        for event in events(run_folder, int(folder.name), "correlation"):
            assert event.step is not None
            if last is None or event.step <= last:
                assert event.step == 0 or event.step not in records, f"the record of step {event.step} is there twice"
                with np.load(folder / event.data["file"], allow_pickle=False) as file:
                    records[event.step] = (event.data, dict(file))
    return records


def counted(run_folder: Path) -> list[tuple[Path, int | None]]:
    """The attempts' folders, each with the step up to which its lines count; None for the last one."""
    folders = sorted((run_folder / "attempts").iterdir())
    lasts = [resume_step(run_folder, int(folder.name)) for folder in folders[1:]]
    return list(zip(folders, [*lasts, None], strict=True))


def resume_step(run_folder: Path, attempt: int) -> int:
    """The step an attempt went on from."""
    step: int = events(run_folder, attempt, "started")[0].data["resume_step"]
    return step


def _points(lines: list[JournalEvent]) -> Iterator[tuple[int, str, float]]:
    for event in lines:
        assert event.step is not None
        for name, value in event.data["values"].items():
            if name not in CLOCKED:
                yield event.step, name, value


def checkpoint(run_folder: Path, attempt: int, step: int) -> dict[str, Any]:
    """The state in a checkpoint."""
    folder = attempt_folder(run_folder, attempt) / "checkpoints" / f"step-{step:08d}"
    state: dict[str, Any] = torch.load(folder / "state.pt", weights_only=True)
    return state


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def outcome_of(run_folder: Path, attempt: int = 1) -> dict[str, Any]:
    """outcome.json of an attempt."""
    value: dict[str, Any] = json.loads((attempt_folder(run_folder, attempt) / "outcome.json").read_text())
    return value
