"""Signals, from the first moment of a process on: nothing here loads torch, which takes seconds."""

from __future__ import annotations

import faulthandler
import signal
from types import FrameType

_stop_heard = False


def stacks_on_signal() -> None:
    """Stacks on standard error: of the failing thread on a fatal signal, of all on SIGUSR1, sent to a stalled rank."""
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def hear_stop() -> None:
    """Take SIGTERM, SIGINT and SIGHUP as requests to stop (`stopping`); a second SIGINT ends the process at once.

    A SIGHUP says that the terminal is gone. Who started this process with nohup wants it to go on, and it does.
    """
    signal.signal(signal.SIGTERM, _on_stop)
    signal.signal(signal.SIGINT, _on_stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _on_stop)


def stop_heard() -> bool:
    """Whether this process was asked to stop."""
    return _stop_heard


def _on_stop(number: int, frame: FrameType | None) -> None:
    global _stop_heard
    if _stop_heard and number == signal.SIGINT:
        raise KeyboardInterrupt
    _stop_heard = True
