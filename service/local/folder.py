"""The directory of a stack: of its owner alone, since passwords, logs, run directories and weights lie in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

STATE = "local.json"
"""A directory with this file in it is one of ours: passwords and ports of the stack."""

_OTHERS = 0o077


def make_private(directory: Path, report: Callable[[str], None]) -> None:
    """Make `directory`, or take what is open to others from a former stack's.

    Raises:
        ValueError: it cannot be made or closed, or it is open to others and holds what is none of ours: to close
            that is its owner's decision.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = directory.stat().st_mode & 0o7777
        if not mode & _OTHERS:
            return
        if not (directory / STATE).exists() and any(directory.iterdir()):
            raise ValueError(
                f"{directory} is open to others (mode {mode:o}) and holds something else than a stack; close it with"
                f" `chmod 700 {directory}` if it may be closed, or choose another --data"
            )
        directory.chmod(0o700)
    except OSError as error:
        raise ValueError(f"{directory} cannot be used: {error}; choose another --data") from error
    report(f"{directory} was open to others (mode {mode:o}); its mode is 700 now")
