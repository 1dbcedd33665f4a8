"""Files of a run directory, and of no other place."""

from __future__ import annotations

import stat
import uuid
from pathlib import Path

from barlow_lab.given_files import inside
from barlow_lab.run_folder import run_folder
from service.api.problems import Problem
from service.settings import Settings


def confined(settings: Settings, job_id: uuid.UUID, relative: str) -> Path:
    """The path of an existing file or folder of a job, links followed.

    Raises:
        Problem: 404; there is none, or the path leads out of the job's run directory.
    """
    root = run_folder(settings.runs_dir, job_id).resolve()
    try:
        return inside(root / relative, root)
    except OSError as error:
        raise Problem("not-found", f"the run directory of job {job_id} has no such file") from error


def confined_file(settings: Settings, job_id: uuid.UUID, relative: str) -> Path:
    """Like `confined`, for a regular file.

    Raises:
        Problem: 404.
    """
    path = confined(settings, job_id, relative)
    if not stat.S_ISREG(path.stat().st_mode):
        raise Problem("not-found", f"the run directory of job {job_id} has no such file")
    return path
