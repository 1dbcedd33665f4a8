"""Why each candidate waits, as far as it can be said without rewriting thousands of rows in every tick."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from service.ledger.reasons import ReasonCode
from service.scheduling.placement_values import Candidate, Needs, NodeSnapshot, Reason, Reservation

FIGURED = 25
"""Waiting jobs of one size and one need that are told how many slots are free; those behind them wait for them."""


class Explainer:
    """Words the state of the fleet after a decision."""

    def __init__(
        self,
        nodes: Sequence[NodeSnapshot],
        *,
        total: Mapping[str, int],
        quarantined: Mapping[str, int],
        free: Callable[[str], int],
    ) -> None:
        """`nodes` by name; the mappings hold every node's slots, `free` counts those of an open one."""
        self._nodes = nodes
        self._total = total
        self._quarantined = quarantined
        self._free = free

    def kept(self, candidate: Candidate, reservation: Reservation) -> Reason:
        """The reason of a job that a node is kept for."""
        code = ReasonCode.PREEMPTING if reservation.preempting else ReasonCode.RESERVED
        free = min(candidate.slots, self._free(reservation.node))
        return code, {"slots": candidate.slots, "node": reservation.node, "free": free}

    def waiting(self, candidates: Iterable[Candidate]) -> Iterable[tuple[Candidate, Reason]]:
        """The reasons of those that nothing is kept for, in their order."""
        alike: dict[tuple[int, Needs], Reason] = {}
        count: dict[tuple[int, Needs], int] = {}
        for candidate in candidates:
            kind = candidate.slots, candidate.needs
            count[kind] = count.get(kind, 0) + 1
            if kind not in alike:
                alike[kind] = self._fleet(*kind)
            reason = alike[kind]
            if reason[0] is ReasonCode.NEEDS_SLOTS and count[kind] > FIGURED:
                reason = _behind(candidate.slots)
            yield candidate, reason

    def _fleet(self, slots: int, needs: Needs) -> Reason:
        if not self._nodes:
            return ReasonCode.NO_NODE, {}
        largest = max(self._total, key=lambda name: self._total[name])
        if slots > self._total[largest]:
            return ReasonCode.TOO_LARGE, {"slots": slots, "node": largest, "total": self._total[largest]}
        here = [node for node in self._nodes if node.open]
        if not here:
            return ReasonCode.NODES_AWAY, {"nodes": list(self._total)}
        data_set, weights = needs
        holding = [node for node in here if data_set in node.data_sets]
        if not holding:
            return ReasonCode.NO_DATA, {"data": data_set, "nodes": [node.name for node in here]}
        having = [node.name for node in holding if node.has(needs)]
        if not having:
            lacking = {"weights": weights, "data": data_set, "nodes": [node.name for node in holding]}
            return ReasonCode.NO_WEIGHTS, lacking
        best = max(having, key=self._free)
        free = self._free(best)
        if free >= slots:  # they are kept for others
            return _behind(slots)
        data = {"slots": slots, "node": best, "free": free, "quarantined": self._quarantined[best]}
        return ReasonCode.NEEDS_SLOTS, data


def _behind(slots: int) -> Reason:
    return ReasonCode.BEHIND, {"slots": slots}
