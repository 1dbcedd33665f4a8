"""The run directory of a job, on the volume that API and workers share or by hand: every path in it, spelt once.

RUN/spec.json                     the resolved spec
RUN/backbone/                     what a pretraining is for, once it has ended well: config.json, model.safetensors
RUN/attempts/0001/                one attempt; its ranks write nowhere else
    inputs.json  control.json     what the attempt is given; how it is asked to stop
    journal.jsonl  trainer.log    what it tells; what its ranks print
    checkpoints/step-00000100/    one checkpoint: manifest.json and state.pt
    outcome.json                  how it ended
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from barlow_lab.disk import sync
from barlow_lab.given_files import read_json

SPEC = "spec.json"
INPUTS = "inputs.json"
CONTROL = "control.json"
JOURNAL = "journal.jsonl"
LOG = "trainer.log"
OUTCOME = "outcome.json"
BACKBONE = "backbone"
BACKBONE_CONFIG = "config.json"
BACKBONE_WEIGHTS = "model.safetensors"
CHECKPOINTS = "checkpoints"
CHECKPOINT_MANIFEST = "manifest.json"
CHECKPOINT_STATE = "state.pt"


def run_folder(runs_dir: Path, job_id: UUID) -> Path:
    """The run directory of a job, absolute, links of the root followed."""
    return runs_dir.resolve() / str(job_id)


def attempt_folder(run: Path, number: int) -> Path:
    """The folder of one attempt in a run directory."""
    return run / "attempts" / f"{number:04d}"


def attempt_folders(run: Path) -> dict[int, Path]:
    """The attempts' folders by number; what a user set aside beside them, say `0003.bad`, is none."""
    return {int(folder.name): folder for folder in run.glob("attempts/*") if folder.name.isdecimal()}


def checkpoint_folders(run: Path) -> dict[tuple[int, int], Path]:
    """The checkpoints' folders by attempt and step; what is half written, half deleted or set aside is none."""
    return {
        (number, int(step)): folder
        for number, attempt in attempt_folders(run).items()
        for folder in attempt.glob(f"{CHECKPOINTS}/step-*")
        if (step := folder.name.removeprefix("step-")).isdecimal()
    }


def read_inputs(folder: Path) -> dict[str, Any]:
    """inputs.json of the attempt in `folder`."""
    value: dict[str, Any] = read_json(folder / INPUTS)
    return value


def publish_backbone(run: Path, exported: Path, tick: Callable[[], None] = lambda: None) -> None:
    """Move an attempt's exported backbone to `RUN/backbone` by one rename; doing it again changes nothing.

    A backbone that an earlier attempt published makes way. `tick` is called before what cannot be undone.

    Raises:
        FileNotFoundError: it was neither exported nor published.
        OSError: it cannot be moved.
    """
    published = run / BACKBONE
    if not exported.exists():
        if not published.exists():
            raise FileNotFoundError(f"{exported} was neither exported nor published")
        return
    tick()
    if published.exists():
        replaced = exported.with_name("backbone-replaced")
        published.rename(replaced)
        shutil.rmtree(replaced)
        tick()
    exported.rename(published)
    sync(run)
