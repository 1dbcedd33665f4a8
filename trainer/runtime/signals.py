"""Signals, from the first moment of a process on: nothing here loads torch, which takes seconds."""

from __future__ import annotations

import faulthandler
import signal
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_stop_heard = False


def stacks_on_signal() -> None:
    """Stacks on standard error: of the failing thread on a fatal signal, of all on SIGUSR1, sent to a stalled rank."""
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def hear_stop() -> None:
    """Take SIGTERM, SIGINT and SIGHUP as requests to stop (`stopping`); a SIGINT after one of them ends it at once.

    A SIGHUP says that the terminal is gone. Who started this process with nohup wants it to go on, and it does.
    """
    for number in STOPS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [*STOPS, signal.SIGUSR1])  # `hold` of who started this process


def hold() -> set[signal.Signals]:
    """Keep what a launcher hands on to its ranks from taking effect here, for it to ask what came; returns these.

    What it starts begins so, too: a signal waits until the rank is ready for it (`hear_stop`).
    """
    held = {*STOPS, signal.SIGUSR1}
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        held.remove(signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    return held


def stop_heard() -> bool:
    """Whether this process was asked to stop."""
    return _stop_heard


def _on_stop(number: int, frame: FrameType | None) -> None:
    global _stop_heard
    if _stop_heard and number == signal.SIGINT:
        raise KeyboardInterrupt
    _stop_heard = True
