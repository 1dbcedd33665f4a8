"""A placement decision carried out: each job in a transaction of its own, so that one in use holds up no other."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from service.database.tables import Attempt, Slot
from service.ledger import attempts, reservations
from service.ledger.moves import try_lock_job
from service.scheduling.placement import RESERVE_AFTER_SECONDS, decide
from service.scheduling.placement_values import Candidate, Placement, Preemption, Reason, Reservation
from service.scheduling.rows import read_snapshot
from service.scheduling.transaction import step

PLACEMENTS_PER_TICK = 100
"""A tick that has more to place leaves the rest to the next one, which follows at once: nothing else waits for them."""

logger = logging.getLogger("service.scheduling")

# A job that somebody is at, or that is not queued any more, keeps its reason.
_TELL = text("""
    WITH told AS (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:codes AS text[]), CAST(:reasons AS jsonb[]))
            AS row(id, code, reason)
    ),
    waiting AS (
        SELECT jobs.id FROM jobs JOIN told USING (id) WHERE state = 'queued' FOR NO KEY UPDATE OF jobs SKIP LOCKED
    )
    UPDATE jobs SET reason_code = told.code, reason = told.reason
    FROM told JOIN waiting USING (id) WHERE jobs.id = told.id
""")


def place(session: Session, *, lease_seconds: float, reserve_after_seconds: float = RESERVE_AFTER_SECONDS) -> bool:
    """Give free slots to queued jobs, make or keep room for those that need it, and tell the others why they wait.

    True: there is more to place.
    """
    rows = read_snapshot(session, lease_seconds=lease_seconds)
    session.commit()
    decision = decide(
        rows.candidates, rows.nodes, rows.slots, rows.attempts, rows.now, reserve_after_seconds=reserve_after_seconds
    )
    now = decision.placements[:PLACEMENTS_PER_TICK]
    placed = [_place_one(session, placement, lease_seconds) for placement in now]
    preemptions = {preemption.job_id: preemption for preemption in decision.preemptions}
    # Nodes are given up before they are given to others.
    for job_id, reservation in sorted(decision.reservations.items(), key=lambda change: change[1] is not None):
        _keep_room(session, job_id, reservation, preemptions.pop(job_id, None))
    for job_id, preemption in preemptions.items():  # the room that its first victims made was not enough
        _keep_room(session, job_id, Reservation(preemption.node, preempting=True), preemption)
    _tell(session, rows.candidates, decision.reasons)
    return len(decision.placements) > PLACEMENTS_PER_TICK and any(placed)


def _place_one(session: Session, placement: Placement, lease_seconds: float) -> bool:
    attempt: Attempt | None = None
    with step(session, f"job {placement.job_id} is not placed"):
        job = try_lock_job(session, placement.job_id)
        if job is not None:
            chosen = select(Slot).where(Slot.node == placement.node, Slot.index.in_(placement.indices))
            attempt = attempts.place(session, job, session.scalars(chosen).all(), lease_seconds=lease_seconds)
    if attempt is not None:
        logger.info("job %s: attempt %d placed on %s", attempt.job_id, attempt.number, attempt.node)
    return attempt is not None


def _keep_room(
    session: Session, job_id: uuid.UUID, reservation: Reservation | None, preemption: Preemption | None
) -> None:
    """The reservation and those who have to leave for it, in one: nobody leaves for nothing."""
    told: list[uuid.UUID] = []
    with step(session, f"no room is made for job {job_id}"):
        node = None if reservation is None else reservation.node
        preempting = reservation is not None and reservation.preempting
        job = reservations.reserve(session, job_id, node, preempting=preempting)
        if job is not None and preemption is not None:
            victims = preemption.attempt_ids
            told = [victim for victim in victims if reservations.request_preemption(session, victim, by=job)]
    for attempt_id in told:
        logger.info("job %s: attempt %s makes room for it", job_id, attempt_id)


def _tell(session: Session, candidates: Sequence[Candidate], reasons: Mapping[uuid.UUID, Reason]) -> None:
    """Write the reasons that differ from those the candidates have."""
    changed = [
        (candidate.job_id, *reasons[candidate.job_id])
        for candidate in candidates
        if candidate.job_id in reasons and reasons[candidate.job_id] != candidate.told
    ]
    if changed:
        ids, codes, data = zip(*changed, strict=True)
        rows = {"ids": list(ids), "codes": list(codes), "reasons": [json.dumps(reason) for reason in data]}
        with step(session, "reasons are not told"):
            session.execute(_TELL, rows)
