"""Whether an attempt still gets on: liveness is not progress."""

from __future__ import annotations

from pathlib import Path

from worker import clock

START_SECONDS = 120.0
"""The time that a trainer may take to its first journal line, however short `stall_seconds`: it imports torch."""
LONGEST_LOOK_SECONDS = 2.0
"""More than this between two looks is not counted: this process was frozen itself, and the trainer perhaps too."""


class StallDetector:
    """Counts for how long a journal has not grown, in every phase until the ranks are gone."""

    def __init__(self, journal: Path, stall_seconds: float) -> None:
        self._journal = journal
        self._stall_seconds = stall_seconds
        self._size = 0
        self._idle = 0.0
        self._looked_at = clock.now()

    def stalled(self) -> bool:
        """Look again: has no line come for `stall_seconds`? To be asked several times a second."""
        size = self._journal.stat().st_size if self._journal.exists() else 0
        now = clock.now()
        idle = self._idle + min(now - self._looked_at, LONGEST_LOOK_SECONDS)
        self._size, self._idle, self._looked_at = size, 0.0 if size != self._size else idle, now
        return self._idle > self.patience

    @property
    def patience(self) -> float:
        """Seconds without a line that are too many now."""
        return self._stall_seconds if self._size else max(self._stall_seconds, START_SECONDS)
