"""Whom to ask to leave, so that as little as possible is lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from service.scheduling.placement_values import AttemptSnapshot

Loss = tuple[int, int, float]
"""What a preemption loses, compared from left to right: slots that are vacated, their priorities, the seconds they
had run; the last two are summed over slots."""

NOTHING: Loss = (0, 0, 0.0)


def cheapest(
    attempts: Sequence[AttemptSnapshot], needed: int, below: int, now: datetime
) -> tuple[Loss, tuple[AttemptSnapshot, ...]] | None:
    """The attempts of one node, preemptible and of a priority lower than `below`, that free at least `needed` slots.

    Of all such sets the one with the least loss. None: all of them together do not suffice.
    """
    possible = [a for a in attempts if a.preemptible and not a.leaving and a.priority < below]
    if sum(attempt.slots for attempt in possible) < needed:
        return None
    # The losses add up, so of all sets that free the same number of slots only the best one matters.
    best: dict[int, tuple[Loss, tuple[AttemptSnapshot, ...]]] = {0: (NOTHING, ())}
    for attempt in sorted(possible, key=lambda attempt: attempt.attempt_id):
        ran = (now - attempt.since).total_seconds()
        for freed, ((slots, priorities, seconds), chosen) in sorted(best.items(), reverse=True):
            if freed >= needed:
                continue
            more = freed + attempt.slots
            loss = (
                slots + attempt.slots,
                priorities + attempt.slots * attempt.priority,
                seconds + attempt.slots * ran,
            )
            if more not in best or loss < best[more][0]:
                best[more] = (loss, (*chosen, attempt))
    return best[min(freed for freed in best if freed >= needed)]
