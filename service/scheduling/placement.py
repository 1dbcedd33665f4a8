"""Which job goes where: a pure function of the queue and the slots."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from service.scheduling.explaining import Explainer
from service.scheduling.placement_values import (
    AttemptSnapshot,
    Candidate,
    Decision,
    NodeSnapshot,
    Placement,
    Reservation,
    SlotSnapshot,
)
from service.scheduling.room import Room

RESERVE_AFTER_SECONDS = 300.0
"""A job of several slots that has been queued for so long gets a node kept for it, if nothing else is said."""
LARGE = 2
"""Slots from which on a job can be starved by smaller ones."""


def decide(
    candidates: Sequence[Candidate],
    nodes: Sequence[NodeSnapshot],
    slots: Sequence[SlotSnapshot],
    attempts: Sequence[AttemptSnapshot],
    now: datetime,
    *,
    reserve_after_seconds: float = RESERVE_AFTER_SECONDS,
) -> Decision:
    """Serve the candidates in their order; one that does not fit does not hold up those behind it, except that

    - where running jobs of lower priority may be preempted for it, they are, and the room they make is kept for it,
      before all others;
    - a job of several slots that has waited long has a node reserved from its turn on: those behind it get there what
      it does not need. It keeps the node while that is of use to it.

    The same input in any order of `nodes`, `slots` and `attempts` gives the same answer.
    """
    by_name = sorted(nodes, key=lambda node: node.name)
    room = Room(by_name, slots, attempts, now)
    # A claim for which others were told to leave goes before one that only waits.
    for candidate in sorted((c for c in candidates if c.reserved_node), key=lambda c: not c.preempting):
        room.renew(candidate)
    decision = Decision([], {}, {}, [])
    waiting: list[Candidate] = []
    for candidate in candidates:
        node = room.fit(candidate)
        if node is not None:
            decision.placements.append(Placement(candidate.job_id, node, room.take(candidate, node)))
            continue
        waits_long = now - candidate.queued_at >= timedelta(seconds=reserve_after_seconds)
        _keep_room(room, candidate, decision, may_reserve=candidate.slots >= LARGE and waits_long)
        waiting.append(candidate)

    explainer = Explainer(by_name, total=room.total, quarantined=room.quarantined, free=room.free)
    kept = room.reservations()
    for candidate, reason in explainer.waiting(c for c in waiting if c.job_id not in kept):
        decision.reasons[candidate.job_id] = reason
        if candidate.reserved_node is not None:
            decision.reservations[candidate.job_id] = None
    for candidate in waiting:
        reservation = kept.get(candidate.job_id)
        if reservation is not None:
            decision.reasons[candidate.job_id] = explainer.kept(candidate, reservation)
            if reservation != Reservation(candidate.reserved_node or "", candidate.preempting):
                decision.reservations[candidate.job_id] = reservation
    return decision


def _keep_room(room: Room, candidate: Candidate, decision: Decision, *, may_reserve: bool) -> None:
    """What can be done for a candidate that does not fit now."""
    soon = room.fit_soon(candidate)
    if soon is None and (preemption := room.preempt(candidate)) is not None:
        decision.preemptions.append(preemption)
    elif room.keeps(candidate):
        room.bind(candidate)
    elif not (may_reserve and room.reserve(candidate)) and soon is not None:
        room.hold(candidate, soon)
