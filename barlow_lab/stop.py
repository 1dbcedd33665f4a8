"""Stop requests: what a worker writes into the control file of an attempt, and its ranks read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, cast, get_args

from barlow_lab.disk import write_atomic
from barlow_lab.given_files import read_json

StopReason = Literal["signal", "lease", "drain", "preempt", "pause", "cancel"]
REASONS: tuple[StopReason, ...] = get_args(StopReason)
"""Why a run is asked to stop; a later one wins over an earlier one.

`signal`: TERM, INT or HUP to any rank; `lease`: the run database is away for too long; `drain`: the worker goes;
`preempt`: the slots are for a job of higher priority; `pause`, `cancel`: a user asked for it.
"""


def request_stop(control_file: Path, reason: str) -> None:
    """Ask the ranks that read `control_file` to write a checkpoint and leave.

    Raises:
        OSError: it cannot be written.
    """
    write_atomic(control_file, json.dumps({"stop": reason}))


def read_request(control_file: Path) -> StopReason | None:
    """The reason in `control_file`; None while there is no such file.

    Raises:
        OSError: it cannot be read.
        ValueError: it says nothing of the kind, as a full disk may leave it.
    """
    try:
        value = read_json(control_file)
    except FileNotFoundError:
        return None
    reason = value.get("stop") if isinstance(value, dict) else None
    if reason not in REASONS:
        raise ValueError(f'it is not {{"stop": one of {", ".join(REASONS)}}}')
    return cast(StopReason, reason)
