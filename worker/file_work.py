"""Files that a worker itself reads and writes, before and after the ranks: a disk that does not answer holds nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from worker import clock
from worker.stalls import LONGEST_LOOK_SECONDS

T = TypeVar("T")


class GivenUp(Exception):
    """Nobody waits for this work any more: it does no further piece."""


class FileWork(Generic[T]):
    """Work in a thread of its own, with a clock of its progress as ranks have one.

    Nothing interrupts a thread that waits for a disk. Who gives it up leaves it behind: it holds no lock, a
    transaction that it is in is ended by the database soon, and it ends with its disk or with this process.
    """

    def __init__(self, work: Callable[[Callable[[], None]], T], stall_seconds: float, name: str) -> None:
        """Begin; `work` calls what it is given for every piece that is done, and before one that cannot be undone."""
        self._work = work
        self._stall_seconds = stall_seconds
        self._done = 0
        self._seen = 0
        self._given_up = False
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

    def give_up(self) -> None:
        """Have no further piece done; what is under way may still come to its end."""
        self._given_up = True

    def stalled(self, seconds: float | None = None) -> bool:
        """Look again: was no piece done for `seconds`, or for `stall_seconds`? To be asked several times a second."""
        now, done = clock.now(), self._done
        idle = self._idle + min(now - self._looked_at, LONGEST_LOOK_SECONDS)
        self._seen, self._idle, self._looked_at = done, 0.0 if done != self._seen else idle, now
        return self._idle > (self._stall_seconds if seconds is None else seconds)

    def _run(self) -> None:
        try:
            self._result = self._work(self._tick)
        except Exception as error:
            self._error = error
        finally:
            self._finished.set()

    def _tick(self) -> None:
        self._done += 1
        if self._given_up:
            raise GivenUp
