"""Which job goes where: a pure function of the queue and the slots."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.ledger.reasons import ReasonCode

Reason = tuple[ReasonCode, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued job: it wants `slots` slots of one node that holds its data set, not before `not_before`."""

    job_id: uuid.UUID
    slots: int
    data_set: str
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class NodeView:
    """A host that has registered at some time. `live`: its worker was seen within the lease."""

    name: str
    live: bool
    data_sets: frozenset[str]


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot that its host still has. `free`: nobody's and not in quarantine."""

    node: str
    index: int
    free: bool
    quarantined: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """A job and the slots it gets, all on one node."""

    job_id: uuid.UUID
    node: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to place, and why each other candidate waits; one that backs off keeps the reason it has."""

    placements: list[Placement]
    reasons: dict[uuid.UUID, Reason]


def decide(
    candidates: Sequence[Candidate], nodes: Sequence[NodeView], slots: Sequence[SlotView], now: datetime
) -> Decision:
    """Serve the candidates in their order; one that does not fit does not hold up those behind it.

    A job takes the node where the fewest slots stay free after it (best fit), so that small jobs share a host and
    whole hosts stay free for large ones. Ties go by name: the same input gives the same answer.
    """
    by_name = sorted(nodes, key=lambda node: node.name)
    free: dict[str, list[int]] = {node.name: [] for node in by_name}
    total = dict.fromkeys(free, 0)
    quarantined = dict.fromkeys(free, 0)
    for slot in sorted(slots, key=lambda slot: (slot.node, slot.index)):
        total[slot.node] += 1
        quarantined[slot.node] += slot.quarantined
        if slot.free:
            free[slot.node].append(slot.index)

    def reason(candidate: Candidate) -> Reason:
        if not by_name:
            return ReasonCode.NO_NODE, {}
        largest = max(total, key=lambda name: total[name])
        if candidate.slots > total[largest]:
            return ReasonCode.TOO_LARGE, {"slots": candidate.slots, "node": largest, "total": total[largest]}
        live = [node for node in by_name if node.live]
        if not live:
            return ReasonCode.NODES_AWAY, {"nodes": list(total)}
        holding = [node.name for node in live if candidate.data_set in node.data_sets]
        if not holding:
            return ReasonCode.NO_DATA, {"data": candidate.data_set, "nodes": [node.name for node in live]}
        best = max(holding, key=lambda name: len(free[name]))
        data = {"slots": candidate.slots, "node": best, "free": len(free[best]), "quarantined": quarantined[best]}
        return ReasonCode.NEEDS_SLOTS, data

    decision = Decision([], {})
    for candidate in candidates:
        if candidate.not_before is not None and candidate.not_before > now:
            continue
        fitting = [
            node.name
            for node in by_name
            if node.live and candidate.data_set in node.data_sets and len(free[node.name]) >= candidate.slots
        ]
        if not fitting:
            decision.reasons[candidate.job_id] = reason(candidate)
            continue
        node = min(fitting, key=lambda name: len(free[name]))
        indices = tuple(free[node][: candidate.slots])
        del free[node][: candidate.slots]
        decision.placements.append(Placement(candidate.job_id, node, indices))
    return decision
