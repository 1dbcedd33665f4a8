"""What a placement sees and what it decides, as plain values."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.ledger.reasons import ReasonCode

Reason = tuple[ReasonCode, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued job that may start now: it wants `slots` slots of one node that holds its data set.

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


@dataclass(frozen=True, slots=True)
class NodeView:
    """A host that has registered at some time. `open`: its worker was seen within the lease and is not about to go."""

    name: str
    open: bool
    data_sets: frozenset[str]


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot that its host still has. `free`: nobody's and not in quarantine."""

    node: str
    index: int
    free: bool
    quarantined: bool = False


@dataclass(frozen=True, slots=True)
class AttemptView:
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
