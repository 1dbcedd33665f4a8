"""What is free on each node while one decision is made, what is about to be, and what is kept for whom."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.scheduling.placement_values import (
    AttemptSnapshot,
    Candidate,
    Needs,
    NodeSnapshot,
    Preemption,
    Reservation,
    SlotSnapshot,
)
from service.scheduling.preemption import Loss, cheapest

RESERVED_SHARE = 0.25
"""Of the open nodes, at least one, so many are reserved at most: with a backlog of jobs that have waited long every
host would else stand half empty for one of them."""

_ENOUGH = ("enough are reserved",)


@dataclass(slots=True)
class Claim:
    """A node that is kept for a job; `binding` once those that are looked at now have to respect it."""

    job_id: uuid.UUID
    slots: int
    preempting: bool
    binding: bool


class Room:
    """The open nodes. What they have shrinks during a decision, so that a "no" holds for all like candidates that
    follow: thousands of them cost nothing. What adds to it (`_claim`, `_release`) forgets every "no"."""

    def __init__(
        self,
        nodes: Sequence[NodeSnapshot],
        slots: Iterable[SlotSnapshot],
        attempts: Iterable[AttemptSnapshot],
        now: datetime,
    ) -> None:
        """`nodes` by name."""
        self._now = now
        self.total = {node.name: 0 for node in nodes}
        self.quarantined = dict.fromkeys(self.total, 0)
        self._open = [node for node in nodes if node.open]
        self._free: dict[str, list[int]] = {node.name: [] for node in self._open}
        for slot in sorted(slots, key=lambda slot: (slot.node, slot.index)):
            self.total[slot.node] += 1
            self.quarantined[slot.node] += slot.quarantined
            if slot.free and slot.node in self._free:
                self._free[slot.node].append(slot.index)
        self._coming = dict.fromkeys(self._free, 0)
        self._staying: dict[str, list[AttemptSnapshot]] = {name: [] for name in self._free}
        for attempt in attempts:
            if attempt.node not in self._free:
                continue
            if attempt.leaving:
                self._coming[attempt.node] += attempt.slots
            else:
                self._staying[attempt.node].append(attempt)
        self._kept = dict.fromkeys(self._free, 0)
        self._claims: dict[str, Claim] = {}
        self._holding: dict[Needs, list[str]] = {}
        self._refused: set[tuple[object, ...]] = set()

    def free(self, node: str) -> int:
        """Free slots of an open node, kept or not."""
        return len(self._free[node])

    def keeps(self, candidate: Candidate) -> bool:
        """Whether the node that was reserved for it is still kept for it."""
        return self._claim_of(candidate) is not None

    def reservations(self) -> dict[uuid.UUID, Reservation]:
        """What is kept for whom."""
        return {claim.job_id: Reservation(node, claim.preempting) for node, claim in self._claims.items()}

    def renew(self, candidate: Candidate) -> None:
        """Take up the reservation that it has, unless its node has become of no use to it.

        One for which others were told to leave binds everybody at once: an older job would take the room they make.
        """
        node = candidate.reserved_node
        if node is None or node in self._claims or node not in self._holders(candidate.needs):
            return
        if self._usable(node) < candidate.slots:
            return
        if candidate.preempting:
            leavable = (a.slots for a in self._staying[node] if a.preemptible and a.priority < candidate.priority)
            if self._soon_for(node) + sum(leavable) < candidate.slots:
                return
        self._claims[node] = Claim(candidate.job_id, candidate.slots, candidate.preempting, binding=False)
        if candidate.preempting:
            self.bind(candidate)

    def fit(self, candidate: Candidate) -> str | None:
        """The node to place it on now: its own, else where the fewest slots stay free (best fit).

        Small jobs so share a host, and whole hosts stay free for large ones. A node that is kept for a later one is
        taken last. Ties go by name.
        """
        own = self._claim_of(candidate)
        if own is not None and self._free_for(*own) >= candidate.slots:
            return own[0]
        fitting = self._those("fit", candidate, lambda node: self._free_for(node) >= candidate.slots)
        return min(fitting, key=lambda node: (node in self._claims, self.free(node), node), default=None)

    def fit_soon(self, candidate: Candidate) -> str | None:
        """The node where it fits once those that were told to leave have left."""
        own = self._claim_of(candidate)
        if own is not None and self._soon_for(*own) >= candidate.slots:
            return own[0]
        if own is not None and own[1].preempting:
            return None
        fitting = self._those("fit soon", candidate, lambda node: self._soon_for(node) >= candidate.slots)
        return min(fitting, key=lambda node: (self._soon_for(node), node), default=None)

    def take(self, candidate: Candidate, node: str) -> tuple[int, ...]:
        """Its slots on `node`; nothing is kept for it any more."""
        self._release(candidate)
        indices = tuple(self._free[node][: candidate.slots])
        del self._free[node][: candidate.slots]
        return indices

    def bind(self, candidate: Candidate) -> None:
        """Have its claim, if it has one, keep the node's slots from everybody else from now on."""
        own = self._claim_of(candidate)
        if own is not None and not own[1].binding:
            own[1].binding = True
            self._kept[own[0]] += own[1].slots

    def hold(self, candidate: Candidate, node: str) -> None:
        """Keep what is about to be free for it in this decision, so that the next one does not count on it too."""
        self._kept[node] += candidate.slots

    def reserve(self, candidate: Candidate) -> bool:
        """Keep the node that has most room for it; False: there is none, or too many are kept already."""
        if _ENOUGH in self._refused:
            return False
        if sum(not claim.preempting for claim in self._claims.values()) >= max(
            1, int(len(self._free) * RESERVED_SHARE)
        ):
            self._refused.add(_ENOUGH)
            return False
        possible = self._those(
            "reserve", candidate, lambda node: node not in self._claims and self._usable(node) >= candidate.slots
        )
        node = min(possible, key=lambda node: (-self._soon_for(node), node), default=None)
        if node is None:
            return False
        self._claim(candidate, node, preempting=False)
        return True

    def preempt(self, candidate: Candidate) -> Preemption | None:
        """Claim the node where the least is lost by making room for it, and say who has to leave."""
        own = self._claim_of(candidate)
        if own is not None and own[1].preempting:
            choices = [self._price(candidate, *own)]
        else:
            asked = ("preempt", candidate.slots, candidate.needs, candidate.priority)
            if asked in self._refused:
                return None
            choices = [self._price(candidate, node) for node in self._holders(candidate.needs)]
            if not any(choices):
                self._refused.add(asked)
        possible = [choice for choice in choices if choice is not None]
        if not possible:
            return None
        _, node, victims = min(possible, key=lambda choice: choice[:2])
        self._claim(candidate, node, preempting=True)
        self._coming[node] += sum(victim.slots for victim in victims)
        self._staying[node] = [attempt for attempt in self._staying[node] if attempt not in victims]
        return Preemption(candidate.job_id, node, tuple(victim.attempt_id for victim in victims))

    def _price(
        self, candidate: Candidate, node: str, own: Claim | None = None
    ) -> tuple[Loss, str, tuple[AttemptSnapshot, ...]] | None:
        standing = self._claims.get(node)
        if standing is not None and standing.binding and standing is not own:
            return None
        needed = candidate.slots - self._soon_for(node, own)
        found = cheapest(self._staying[node], needed, candidate.priority, self._now)
        return None if found is None else (found[0], node, found[1])

    def _claim_of(self, candidate: Candidate) -> tuple[str, Claim] | None:
        node = candidate.reserved_node
        claim = None if node is None else self._claims.get(node)
        return (node, claim) if node and claim and claim.job_id == candidate.job_id else None

    def _claim(self, candidate: Candidate, node: str, *, preempting: bool) -> None:
        self._release(candidate)
        self._claims[node] = Claim(candidate.job_id, candidate.slots, preempting, binding=True)
        self._kept[node] += candidate.slots
        self._refused.clear()

    def _release(self, candidate: Candidate) -> None:
        own = self._claim_of(candidate)
        if own is not None:
            node, claim = own
            del self._claims[node]
            self._kept[node] -= claim.slots if claim.binding else 0
            self._refused.clear()

    def _free_for(self, node: str, own: Claim | None = None) -> int:
        """What a job may take now, with its own claim on the node if it has one."""
        return self.free(node) - self._kept[node] + (own.slots if own is not None and own.binding else 0)

    def _soon_for(self, node: str, own: Claim | None = None) -> int:
        return self._free_for(node, own) + self._coming[node]

    def _usable(self, node: str) -> int:
        return self.total[node] - self.quarantined[node]

    def _holders(self, needs: Needs) -> list[str]:
        if needs not in self._holding:
            self._holding[needs] = [node.name for node in self._open if node.has(needs)]
        return self._holding[needs]

    def _those(self, question: str, candidate: Candidate, suits: Callable[[str], bool]) -> list[str]:
        """The nodes that have what it needs and suit it; no node is asked again once all have said no."""
        asked = (question, candidate.slots, candidate.needs)
        if asked in self._refused:
            return []
        found = [node for node in self._holders(candidate.needs) if suits(node)]
        if not found:
            self._refused.add(asked)
        return found
