"""The directory of a stack: of its owner alone, since passwords, logs, run directories and weights lie in it.

One process at a time holds it; what a stack has to remember stands in one file of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from barlow_lab import private_folders
from barlow_lab.foreign_text import shown

STATE = "local.json"
"""A directory with this file in it is one of ours: passwords and ports of the stack."""

_OTHERS = 0o077
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def make_private(directory: Path, report: Callable[[str], None]) -> None:
    """Make `directory`, or take what is open to others from a former stack's.

    A folder above it in which others may write, or that is another account's, is reported: they could exchange the
    whole directory, now or in mid-run.

    Raises:
        ValueError: it cannot be made or closed, it belongs to another account, its name would break lines, or it is
            open to others and holds what is none of ours: to close that is its owner's decision.
    """
    if _CONTROL.search(str(directory.absolute())):
        raise ValueError(
            f"{shown(str(directory.absolute()))} has a control character in it, as a line feed is one, which PostgreSQL"
            " and logs have no place for; choose another --data"
        )
    try:
        private_folders.make(directory)
        facts = directory.stat()
        if facts.st_uid != os.geteuid():
            raise ValueError(
                f"{directory} belongs to another account (user id {facts.st_uid}), which could exchange what a stack"
                f" keeps there; choose another --data, or make it yours first: chown {os.geteuid()} {directory}"
            )
        if above := private_folders.open_above(directory):
            report(
                f"Warning: other accounts may write in {above} and could put something else in the place of"
                f" {directory}; close it with `chmod go-w {above}`, or choose another --data"
            )
        elif above := private_folders.of_another(directory):
            report(
                f"Warning: {above} belongs to another account (user id {above.lstat().st_uid}), which could put"
                f" something else in the place of {directory}; choose another --data unless you trust it with the stack"
            )
        mode = facts.st_mode & 0o7777
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


def lock(directory: Path) -> TextIO:
    """Hold `directory` for this process, until the file is closed or the process ends in any way.

    Raises:
        ValueError: another process holds it.
        OSError: the directory cannot be written.
    """
    file = (directory / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise ValueError(
            f"a `barlow up` already runs on {directory} (process {owner}); "
            f"stop it with `kill {owner}`, or choose another --data"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def read_state(directory: Path) -> dict[str, Any]:
    """Passwords and ports of a stack, as they were left, and a new secret for each that is missing.

    Redis' password and the recorder's token are none of them: no data hang on them, so they are others at every start.
    """
    try:
        state: dict[str, Any] = json.loads((directory / STATE).read_text("utf-8"))
    except FileNotFoundError:
        state = {}
    for name in ("redis_password", "mlflow_token"):
        state.pop(name, None)  # a former version kept it
    for name in ("database", "owner", "mlflow", "superuser"):
        state.setdefault(f"{name}_password", secrets.token_urlsafe(24))
    return state


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Write JSON that only its owner may read, by rename."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    with part.open("w") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a server that has taken a password has it for good
    part.rename(path)
