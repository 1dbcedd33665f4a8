"""How the ranks of an attempt are brought to an end: asked, then TERM, then KILL."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

from barlow_lab.stop import request_stop
from worker import clock
from worker.process import Ranks

log = logging.getLogger(__name__)

STACK_SECONDS = 2.0
STALLED_GRACE_SECONDS = 5.0


class StopLadder:
    """The steps of ending one attempt, each taken when its time has come.

    `why` is the reason that came first; `signalled`: the ranks got a signal, they were not only asked.
    """

    def __init__(self, ranks: Ranks, control_file: Path) -> None:
        self.why: str | None = None
        self.signalled = False
        self._ranks = ranks
        self._control_file = control_file
        self._asked: set[str] = set()
        self._steps: list[tuple[float, signal.Signals]] = []

    def ask(self, reason: str, *, term_after: float, kill_after: float) -> None:
        """Ask the trainer to write a checkpoint and leave; the same reason again changes nothing.

        Args:
            reason: a stop reason, see barlow_lab.stop.
            term_after, kill_after: seconds from now until TERM and KILL.
        """
        if reason not in self._asked:
            self._asked.add(reason)
            try:
                request_stop(self._control_file, reason)
            except OSError as error:  # a full disk, say: TERM asks for the same
                log.warning("the trainer is not asked but signalled: %s", error)
                term_after = 0.0
            self._plan(reason, (term_after, signal.SIGTERM), (kill_after, signal.SIGKILL))

    def end_stalled(self) -> None:
        """End ranks that make no progress: their stacks go to the log first. They are not asked: they hear nothing."""
        if "stall" not in self._asked:
            self._asked.add("stall")
            grace = STACK_SECONDS + STALLED_GRACE_SECONDS
            self._plan("stall", (0, signal.SIGUSR1), (STACK_SECONDS, signal.SIGTERM), (grace, signal.SIGKILL))

    def advance(self) -> None:
        """Take every step whose time has come."""
        now = clock.now()
        for step in [step for step in self._steps if step[0] <= now]:
            self._steps.remove(step)
            self._ranks.signal(step[1])
            self.signalled = True

    def _plan(self, why: str, *steps: tuple[float, signal.Signals]) -> None:
        self.why = self.why or why
        now = clock.now()
        self._steps = sorted([*self._steps, *((now + after, number) for after, number in steps)])
