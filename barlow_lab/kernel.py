"""What a process asks of Linux for itself, by prctl(2)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from barlow_lab.environment import PARENT_PID

SET_PDEATHSIG, SET_DUMPABLE, SET_NO_NEW_PRIVS = 1, 4, 38


def ask(option: int, value: int) -> None:
    """prctl(option, value).

    Raises:
        OSError: the kernel refuses it.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (only if BARLOW_PARENT_PID is set).

    The parent is the *thread* that spawned this process: the spawner's thread must live as long as its children.
    """
    parent = os.environ.get(PARENT_PID)
    if parent is None:
        return
    ask(SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the line above
        sys.exit(f"ending now: the parent process {parent} is gone")


def hide() -> None:
    """Let no other process of this account read the memory or the environment of this one, or trace it; no core file.

    Programs that it starts are not hidden. Root sees all of it, py-spy and gdb need root then.
    """
    ask(SET_DUMPABLE, 0)


def give_up_privileges() -> None:
    """No program that this process starts, and none that these start, gets other rights by its file (sudo, su)."""
    ask(SET_NO_NEW_PRIVS, 1)
