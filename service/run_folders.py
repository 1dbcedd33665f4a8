"""Where the runs lie on the volume that API and workers share."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID


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
        for folder in attempt.glob("checkpoints/step-*")
        if (step := folder.name.removeprefix("step-")).isdecimal()
    }
