"""Folders and files of a run (DESIGN 4), and what a run started by hand does for itself that a worker would do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from trainer.outcome import BadSpec, sync_folder, write_json
from trainer.specs import Spec, digest, parse_spec

SPEC_FILE = "spec.json"
INPUTS_FILE = "inputs.json"
CONTROL_FILE = "control.json"
BACKBONE = "backbone"


def attempt_folder(run_folder: Path, attempt: int) -> Path:
    """The folder of one attempt: the only place its ranks write to."""
    return run_folder / "attempts" / f"{attempt:04d}"


def begin_by_hand(run_folder: Path, spec: Spec, backbone: Path | None) -> int:
    """Make the run directory and the folder of its next attempt with inputs.json; returns the attempt's number.

    Raises:
        BadSpec: the directory holds a run of another spec.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    _keep_spec(run_folder, spec)
    taken = [int(folder.name) for folder in (run_folder / "attempts").glob("[0-9]*")]
    attempt = max(taken, default=0) + 1
    folder = attempt_folder(run_folder, attempt)
    inputs = {"backbone": _backbone_input(backbone), "data": {spec.data.name: {"root": None}}}
    folder.mkdir(parents=True)
    write_json(folder / INPUTS_FILE, inputs)
    return attempt


def read_inputs(folder: Path) -> dict[str, Any]:
    """inputs.json of the attempt in `folder`."""
    value: dict[str, Any] = json.loads((folder / INPUTS_FILE).read_text("utf-8"))
    return value


def publish_backbone(run_folder: Path, folder: Path) -> None:
    """Copy the attempt's backbone to the run's, where a reader sees the old one or the whole new one."""
    final, temporary = run_folder / BACKBONE, run_folder / f".{BACKBONE}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(folder / BACKBONE, temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync_folder(run_folder)


def _keep_spec(run_folder: Path, spec: Spec) -> None:
    path = run_folder / SPEC_FILE
    if not path.exists():
        write_json(path, spec.resolved())
        return
    there = digest(parse_spec(json.loads(path.read_text("utf-8"))))
    if there != digest(spec):
        raise BadSpec(
            f"{run_folder} holds a run of another spec (digest {there[:12]}, this spec has {digest(spec)[:12]}); "
            "use another --run-dir, or the spec.json in it to go on with that run"
        )


def _backbone_input(folder: Path | None) -> dict[str, str] | None:
    """A published backbone (config.json names its digest), or a checkpoint folder of a pretraining."""
    if folder is None:
        return None
    if (folder / "manifest.json").exists():
        return {"checkpoint": str(folder.resolve())}
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return {"path": str(folder.resolve()), "sha256": config["sha256"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadSpec(
            f"--backbone {folder} is neither a published backbone nor a checkpoint folder ({error}); "
            "give the `backbone` folder of a pretraining's run directory"
        ) from error
