"""What the end of an attempt means: from outcome.json, the exit statuses and what was asked of the ranks."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from service.completion import STOPPED_BY, Ending
from service.ledger.states import AttemptOutcome


def ending(
    outcome: dict[str, Any] | None, statuses: Sequence[int], why: str | None, *, signalled: bool, stall_seconds: float
) -> Ending:
    """The end of ranks that are gone.

    Args:
        outcome: outcome.json, if this attempt wrote one.
        statuses: exit status per rank, negative for a signal.
        why: what the ranks were stopped for, None if they were not.
        signalled: whether they got a signal for it; else a crash is their own, say in their last checkpoint.
        stall_seconds: for how long nothing was journalled, should that be why.
    """
    name = AttemptOutcome(outcome["outcome"]) if outcome is not None else None
    unfinished = name in (None, AttemptOutcome.STOPPED, AttemptOutcome.CRASHED)
    if why == "stall" and unfinished:
        message = f"no progress for {stall_seconds:g} s; the stacks of its processes are in the log"
        return Ending(AttemptOutcome.STALLED, message)
    # Ranks whose lease ran out end themselves; no other request can make them crash.
    crashed = name is not AttemptOutcome.STOPPED and not signalled and why != "lease"
    if why in STOPPED_BY and unfinished and not crashed:
        return Ending(*STOPPED_BY[why])
    if outcome is None or name is None:
        return Ending(
            AttemptOutcome.CRASHED, f"ended without a word: {', '.join(map(_words, range(len(statuses)), statuses))}"
        )
    return Ending.said(outcome)


def _words(rank: int, status: int) -> str:
    if status >= 0:
        return f"rank {rank} exited with status {status}"
    name = signal.Signals(-status).name
    hint = " (by hand, or by the kernel for want of memory)" if -status == signal.SIGKILL else ""
    return f"rank {rank} was ended by {name}{hint}"
