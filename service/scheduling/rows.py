"""What the scheduler reads of the run database in one tick."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import func, or_, select, text
from sqlalchemy.orm import Session

from barlow_lab.specs.backbone_files import BackboneFiles, weights_file
from barlow_lab.specs.kinds import KINDS, TAKERS
from service.database.tables import Attempt, Job, Node, Slot
from service.ledger.nodes import is_live
from service.ledger.states import AttemptState
from service.scheduling.placement_values import AttemptSnapshot, Candidate, NodeSnapshot, SlotSnapshot

CANDIDATES_PER_SIZE = 1000
"""Jobs of one size that a tick looks at; a small job is seen however many large ones stand before it."""

# The spec, which is long, is not read for kinds that take no backbone from elsewhere.
_COLUMNS = """
    id, slots, data_set, priority, queued_at, reserved_node, preempting, reason_code, CAST(reason AS text) AS reason,
    order_key, CASE WHEN kind <> ALL(:without) THEN spec #>> '{backbone_from,file}' END AS file,
    CASE WHEN kind <> ALL(:without) THEN spec #>> '{backbone_from,torchvision}' END AS torchvision
"""

# The sizes by a loose scan of ix_jobs_queue, which then gives the first jobs of each in their order. A job keeps its
# reservation also where 1,000 of its size have come to stand before it.
_CANDIDATES = text(f"""
    WITH RECURSIVE sizes(size) AS (
        SELECT min(slots) FROM jobs WHERE state = 'queued'
        UNION ALL
        SELECT (SELECT min(slots) FROM jobs WHERE state = 'queued' AND slots > size) FROM sizes WHERE size IS NOT NULL
    )
    SELECT first.* FROM sizes CROSS JOIN LATERAL (
        SELECT {_COLUMNS} FROM jobs
        WHERE state = 'queued' AND slots = size AND reserved_node IS NULL
          AND (not_before IS NULL OR not_before <= :now)
          AND NOT EXISTS (SELECT FROM attempts WHERE job_id = jobs.id AND attempts.state <> 'ended')
        ORDER BY order_key, id LIMIT :limit
    ) AS first
    UNION ALL
    SELECT {_COLUMNS} FROM jobs
    WHERE state = 'queued' AND reserved_node IS NOT NULL
      AND NOT EXISTS (SELECT FROM attempts WHERE job_id = jobs.id AND attempts.state <> 'ended')
    ORDER BY order_key, id
""")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look; `now` is the database's clock."""

    now: datetime
    candidates: list[Candidate]
    nodes: list[NodeSnapshot]
    slots: list[SlotSnapshot]
    attempts: list[AttemptSnapshot]


def read_snapshot(session: Session, *, lease_seconds: float) -> Snapshot:
    """All that a placement decision depends on, in a transaction that the caller has not used yet.

    Of one moment: a node that registers meanwhile must not show its slots without itself.
    """
    session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return Snapshot(now, _candidates(session, now), _nodes(session, lease_seconds), _slots(session), _attempts(session))


def _candidates(session: Session, now: datetime) -> list[Candidate]:
    without = [kind for kind in KINDS if kind not in TAKERS]
    found = session.execute(_CANDIDATES, {"now": now, "limit": CANDIDATES_PER_SIZE, "without": without})
    return [
        Candidate(
            row.id,
            row.slots,
            row.data_set,
            row.priority,
            row.queued_at,
            row.reserved_node,
            row.preempting,
            None if row.reason_code is None else (row.reason_code, _parsed(row.reason)),
            weights_file(row.file, row.torchvision),
        )
        for row in found
    ]


@lru_cache(maxsize=4096)
def _parsed(reason: str) -> dict[str, Any]:
    """Thousands of jobs are told the same; the result is shared and never changed."""
    parsed: dict[str, Any] = json.loads(reason)
    return parsed


def _nodes(session: Session, lease_seconds: float) -> list[NodeSnapshot]:
    is_open = is_live(lease_seconds) & Node.draining_at.is_(None)
    found = session.execute(select(Node.name, is_open, Node.data_sets, Node.backbones))
    return [
        NodeSnapshot(name, there, _usable(data_sets), _weights(backbones))
        for name, there, data_sets, backbones in found
    ]


def _usable(data_sets: dict[str, Any]) -> frozenset[str]:
    """A set with a fault is as good as none: a job placed there would end with it."""
    return frozenset(name for name, entry in data_sets.items() if not entry.get("fault"))


def _weights(said: dict[str, Any] | None) -> frozenset[str] | None:
    """Which there are, if the node has named all of them."""
    found = None if said is None else BackboneFiles.model_validate(said)
    return frozenset(found.names) if found is not None and found.complete else None


def _slots(session: Session) -> list[SlotSnapshot]:
    there = select(Slot.node, Slot.index, Slot.attempt_id, Slot.quarantined_at).where(Slot.retired_at.is_(None))
    return [
        SlotSnapshot(node, index, free=holder is None and since is None, quarantined=since is not None)
        for node, index, holder, since in session.execute(there)
    ]


def _attempts(session: Session) -> list[AttemptSnapshot]:
    leaving = or_(
        Attempt.state == AttemptState.STOPPING,
        Attempt.preempted_at.is_not(None),
        Job.cancel_requested_at.is_not(None),
        Job.pause_requested_at.is_not(None),
    )
    held = (Job.slots, Job.priority, Job.preemptible, leaving, Attempt.placed_at)
    live = select(Attempt.id, Attempt.node, *held).join(Job, Job.id == Attempt.job_id)
    return [AttemptSnapshot(*row) for row in session.execute(live.where(Attempt.state != AttemptState.ENDED))]
