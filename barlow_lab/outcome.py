"""How an attempt ends: outcome.json, written once, by the rank that knows the cause first.

A rank that fails breaks the collectives of its peers, so they fail a moment later for a reason that is not the
cause. The first one claims `outcome.claim` by an exclusive create before it lets go of its sockets; everyone else
finds the claim taken and keeps quiet.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from barlow_lab.disk import write_json
from barlow_lab.environment import ATTEMPT_TOKEN
from barlow_lab.given_files import read_json
from barlow_lab.run_folder import OUTCOME
from barlow_lab.stop import StopReason

OutcomeName = Literal["ok", "stopped", "bad_spec", "bad_data", "out_of_memory", "diverged", "crashed"]

CLAIM = "outcome.claim"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an attempt. `backbone` names the exported folder inside the attempt's, if there is one; `reason`, for
    a `stopped` one, is what it was stopped for."""

    outcome: OutcomeName
    message: str
    step: int | None = None
    result: dict[str, Any] | None = None
    backbone: str | None = None
    error_class: str | None = None
    traceback: str | None = None
    reason: StopReason | None = None


def publish(folder: Path, outcome: Outcome) -> bool:
    """Write outcome.json if no rank of this attempt has written one; says whether this call did.

    The fencing token of the attempt comes from the environment (BARLOW_ATTEMPT_TOKEN).
    """
    if not claim(folder):
        return False
    write_json(folder / OUTCOME, {**asdict(outcome), "token": os.environ.get(ATTEMPT_TOKEN)})
    return True


def claim(folder: Path) -> bool:
    """Take the right to name the end of this attempt, from all of its ranks; False: one of them has it."""
    try:
        os.close(os.open(folder / CLAIM, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    return True


def read(folder: Path, wait_seconds: float = 0.0) -> dict[str, Any] | None:
    """The outcome of the attempt in `folder`; None if none appears within `wait_seconds`."""
    deadline = time.monotonic() + wait_seconds
    while True:
        with contextlib.suppress(FileNotFoundError):
            value: dict[str, Any] = read_json(folder / OUTCOME)
            return value
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.05)
