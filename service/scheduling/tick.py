"""One look of the scheduler at the database: reap, release, place. Each step is a transaction of its own."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.database.tables import Attempt, Job, Node, SchedulerSeen, Slot
from service.ledger import attempts, dependants, losses
from service.ledger.losses import Complete
from service.ledger.moves import try_lock_job
from service.ledger.nodes import is_live
from service.ledger.reasons import words
from service.ledger.states import AttemptState, JobState
from service.scheduling.placement import Candidate, Decision, NodeView, Placement, Reason, SlotView, decide

CANDIDATES_PER_SIZE = 1000
"""Jobs of one size that a tick looks at; a small job is seen however many large ones stand before it."""

logger = logging.getLogger("service.scheduling")


def tick(session: Session, *, instance: uuid.UUID, lease_seconds: float, may_reap: bool, complete: Complete) -> None:
    """Look once. `may_reap` is False in the first lease after a start, when workers may not have been heard yet."""
    if may_reap:
        reap(session, complete)
    release(session)
    place(session, lease_seconds=lease_seconds)
    _say_seen(session, instance)


def reap(session: Session, complete: Complete) -> None:
    """End the attempts whose lease has run out."""
    late = losses.expired(session)
    session.commit()
    for attempt_id in late:
        attempt = losses.reap(session, attempt_id, complete)
        session.commit()
        if attempt is not None:
            logger.warning("job %s: attempt %d is reaped: %s", attempt.job_id, attempt.number, attempt.message)


def release(session: Session) -> None:
    """Queue or cancel the jobs whose dependencies have ended."""
    ready = dependants.ready_to_settle(session)
    session.commit()
    for job_id in ready:
        state = dependants.settle(session, job_id)
        session.commit()
        if state is not None:
            logger.info("job %s: waited, now %s", job_id, state)


def place(session: Session, *, lease_seconds: float) -> None:
    """Give free slots to queued jobs, and tell the others why they wait."""
    decision = _look(session, lease_seconds)
    session.commit()
    for placement in decision.placements:
        _carry_out(session, placement, lease_seconds)
    _write_reasons(session, decision.reasons)
    session.commit()


def placed(session: Session) -> list[tuple[str, uuid.UUID]]:
    """Node and id of every attempt that waits to be accepted."""
    rows = session.execute(select(Attempt.node, Attempt.id).where(Attempt.state == AttemptState.PLACED)).all()
    session.commit()
    return [(row.node, row.id) for row in rows]


def _look(session: Session, lease_seconds: float) -> Decision:
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    nodes = [
        NodeView(name, live, frozenset(data_sets))
        for name, live, data_sets in session.execute(select(Node.name, is_live(lease_seconds), Node.data_sets))
    ]
    there = select(Slot.node, Slot.index, Slot.attempt_id, Slot.quarantined_at).where(Slot.retired_at.is_(None))
    slots = [
        SlotView(node, index, free=holder is None and since is None, quarantined=since is not None)
        for node, index, holder, since in session.execute(there)
    ]
    return decide(_candidates(session), nodes, slots, now)


def _candidates(session: Session) -> list[Candidate]:
    live = select(Attempt.id).where(Attempt.job_id == Job.id, Attempt.state != AttemptState.ENDED).exists()
    rank = func.row_number().over(partition_by=Job.slots, order_by=(Job.order_key, Job.id)).label("rank")
    queued = (
        select(
            Job.id,
            Job.slots,
            Job.order_key,
            Job.not_before,
            Job.spec["data"]["name"].as_string().label("data_set"),
            rank,
        )
        .where(Job.state == JobState.QUEUED, ~live)
        .subquery()
    )
    first = select(queued).where(queued.c.rank <= CANDIDATES_PER_SIZE).order_by(queued.c.order_key, queued.c.id)
    return [Candidate(row.id, row.slots, row.data_set, row.not_before) for row in session.execute(first)]


def _carry_out(session: Session, placement: Placement, lease_seconds: float) -> None:
    job = try_lock_job(session, placement.job_id)
    if job is not None:
        chosen = select(Slot).where(Slot.node == placement.node, Slot.index.in_(placement.indices))
        attempt = attempts.place(session, job, session.scalars(chosen).all(), lease_seconds=lease_seconds)
        if attempt is not None:
            logger.info("job %s: attempt %d placed on %s", job.id, attempt.number, attempt.node)
    session.commit()


def _write_reasons(session: Session, reasons: dict[uuid.UUID, Reason]) -> None:
    alike: dict[str, tuple[Reason, list[uuid.UUID]]] = {}
    for job_id, reason in reasons.items():
        alike.setdefault(words(*reason), (reason, []))[1].append(job_id)
    for (code, data), job_ids in alike.values():
        changed = Job.reason_code.is_distinct_from(code) | Job.reason.is_distinct_from(data)
        session.execute(
            update(Job)
            .where(Job.id.in_(job_ids), Job.state == JobState.QUEUED, changed)
            .values(reason_code=code, reason=data),
            execution_options={"synchronize_session": False},
        )


def _say_seen(session: Session, instance: uuid.UUID) -> None:
    facts = {"instance": instance, "seen_at": func.clock_timestamp()}
    session.execute(
        insert(SchedulerSeen).values(id=1, **facts).on_conflict_do_update(index_elements=["id"], set_=facts)
    )
    session.commit()
