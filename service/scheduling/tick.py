"""One look of the scheduler at the database: reap, release, place. Each step is a transaction of its own."""

from __future__ import annotations

import logging
import uuid

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.database.tables import Attempt, SchedulerSeen
from service.ledger import dependants
from service.ledger.losses import Complete
from service.ledger.states import AttemptState, JobState
from service.scheduling.placement import RESERVE_AFTER_SECONDS
from service.scheduling.placing import place
from service.scheduling.reaping import reap, report_quarantines
from service.scheduling.transaction import step

logger = logging.getLogger("service.scheduling")


def tick(
    session: Session,
    *,
    instance: uuid.UUID,
    lease_seconds: float,
    may_reap: bool,
    complete: Complete,
    reserve_after_seconds: float = RESERVE_AFTER_SECONDS,
) -> bool:
    """Look once. `may_reap` is False in the first lease after a start, when workers may not have been heard yet.

    True: there is more to do at once.
    """
    if may_reap:
        reap(session, complete)
    report_quarantines(session)
    release(session)
    more = place(session, lease_seconds=lease_seconds, reserve_after_seconds=reserve_after_seconds)
    _say_seen(session, instance)
    return more


def release(session: Session) -> None:
    """Queue or cancel the jobs whose dependencies have ended."""
    ready = dependants.ready_to_settle(session)
    session.commit()
    for job_id in ready:
        state: JobState | None = None
        with step(session, f"job {job_id} is not released"):
            state = dependants.settle(session, job_id)
        if state is not None:
            logger.info("job %s: waited, now %s", job_id, state)


def placed(session: Session) -> list[tuple[str, uuid.UUID]]:
    """Node and id of every attempt that waits to be accepted."""
    rows = session.execute(select(Attempt.node, Attempt.id).where(Attempt.state == AttemptState.PLACED)).all()
    session.commit()
    return [(row.node, row.id) for row in rows]


def _say_seen(session: Session, instance: uuid.UUID) -> None:
    facts = {"instance": instance, "seen_at": func.clock_timestamp()}
    session.execute(
        insert(SchedulerSeen).values(id=1, **facts).on_conflict_do_update(index_elements=["id"], set_=facts)
    )
    session.commit()
