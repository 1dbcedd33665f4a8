"""What a placement sees and what it decides, as plain values."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.ledger.reasons import ReasonCode

Reason = tuple[ReasonCode, dict[str, Any]]
Needs = tuple[str, str | None]
"""What has to be on a job's node: a data set, and a file of weights or none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued job that may start now: it wants `slots` slots of one node that has what it `needs`.

    `weights`: the file that the backbone is in which it judges, as `backbone_from` names it; None: it needs none.
    `reserved_node`: the node that is kept for it; `preempting`: others were told to make room for it there.
    `told`: the reason that it has now.
    """

    job_id: uuid.UUID
    slots: int
    data_set: str
    priority: int
    queued_at: datetime
    reserved_node: str | None = None
    preempting: bool = False
    told: tuple[str, dict[str, Any]] | None = None
    weights: str | None = None

    @property
    def needs(self) -> Needs:
        """Its data set and its weights."""
        return self.data_set, self.weights


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """A host that has registered at some time. `open`: its worker was seen within the lease and is not about to go.
    `weights`: the files of weights that it has; None: it has not said all of them, and may have any."""

    name: str
    open: bool
    data_sets: frozenset[str]
    weights: frozenset[str] | None = None

    def has(self, needs: Needs) -> bool:
        """Whether a job that needs this may be placed here, as far as is known."""
        data_set, weights = needs
        return data_set in self.data_sets and (weights is None or self.weights is None or weights in self.weights)


@dataclass(frozen=True, slots=True)
class SlotSnapshot:
    """A slot that its host still has. `free`: nobody's and not in quarantine."""

    node: str
    index: int
    free: bool
    quarantined: bool = False


@dataclass(frozen=True, slots=True)
class AttemptSnapshot:
    """A live attempt and the slots it holds. `leaving`: it was told to stop, so its slots are about to be free."""

    attempt_id: uuid.UUID
    node: str
    slots: int
    priority: int
    preemptible: bool
    leaving: bool
    since: datetime


@dataclass(frozen=True, slots=True)
class Placement:
    """A job and the slots it gets, all on one node."""

    job_id: uuid.UUID
    node: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reservation:
    """A node whose slots are kept for a waiting job; `preempting`: others are told to make room there."""

    node: str
    preempting: bool = False


@dataclass(frozen=True, slots=True)
class Preemption:
    """The attempts that are to make room for a job on a node."""

    job_id: uuid.UUID
    node: str
    attempt_ids: tuple[uuid.UUID, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do in one tick.

    `reservations` holds those that change, None for one that is given up. `reasons` says of every candidate that is
    not placed why it waits.
    """

    placements: list[Placement]
    reasons: dict[uuid.UUID, Reason]
    reservations: dict[uuid.UUID, Reservation | None]
    preemptions: list[Preemption]
