"""Files looked at before an attempt's ranks are there, so that a disk which does not answer holds nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from worker import clock
from worker.progress import LONGEST_LOOK_SECONDS

T = TypeVar("T")


class Preparation(Generic[T]):
    """Work in a thread of its own, with a clock of its progress as ranks have one.

    Nothing interrupts a thread that waits for a disk. Who gives it up leaves it behind: it holds no session and no
    lock, and ends with its disk or with this process.
    """

    def __init__(self, work: Callable[[Callable[[], None]], T], stall_seconds: float, name: str) -> None:
        """Begin; `work` calls what it is given for every piece that is done."""
        self._work = work
        self._stall_seconds = stall_seconds
        self._done = 0
        self._seen = 0
        self._idle = 0.0
        self._looked_at = clock.now()
        self._result: T | None = None
        self._error: Exception | None = None
        self._finished = threading.Event()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether it is finished, after at most so long."""
        return self._finished.wait(seconds)

    def result(self) -> T:
        """What it gave, once it is finished; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def stalled(self) -> bool:
        """Look again: was no piece done for `stall_seconds`? To be asked several times a second."""
        now, done = clock.now(), self._done
        idle = self._idle + min(now - self._looked_at, LONGEST_LOOK_SECONDS)
        self._seen, self._idle, self._looked_at = done, 0.0 if done != self._seen else idle, now
        return self._idle > self._stall_seconds

    def _run(self) -> None:
        try:
            self._result = self._work(self._tick)
        except Exception as error:
            self._error = error
        finally:
            self._finished.set()

    def _tick(self) -> None:
        self._done += 1
