"""Where the runs lie on the volume that API and workers share (DESIGN 4)."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID


def run_folder(runs_dir: Path, job_id: UUID) -> Path:
    """The run directory of a job, absolute, links of the root followed."""
    return runs_dir.resolve() / str(job_id)


def attempt_folder(run: Path, number: int) -> Path:
    """The folder of one attempt in a run directory."""
    return run / "attempts" / f"{number:04d}"
