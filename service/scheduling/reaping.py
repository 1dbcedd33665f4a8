"""Attempts that nobody speaks for any more, and slots that stay in quarantine for unusually long."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from service.database.tables import Attempt, Slot
from service.ledger import events, losses, nodes
from service.ledger.attempts import SCHEDULER
from service.ledger.losses import Complete
from service.ledger.moves import try_lock_job
from service.scheduling.transaction import step

OVERDUE_SECONDS = 600.0
"""A slot that its node has not found empty for so long is reported: an admin may have to look and release it."""

logger = logging.getLogger("service.scheduling")


def reap(session: Session, complete: Complete) -> None:
    """End the attempts whose lease has run out."""
    late = losses.expired(session)
    session.commit()
    for attempt_id in late:
        attempt: Attempt | None = None
        with step(session, f"attempt {attempt_id} is not reaped"):
            attempt = losses.reap(session, attempt_id, complete)
        if attempt is not None:
            logger.warning("job %s: attempt %d is reaped: %s", attempt.job_id, attempt.number, attempt.message)


def report_quarantines(session: Session) -> None:
    """Warn of slots that nobody has found empty, in the log and in the history of the job that was lost on them."""
    slots: list[Slot] = []
    with step(session, "long quarantines are not reported"):
        slots = nodes.overdue_quarantines(session, after_seconds=OVERDUE_SECONDS)
        if not all(_tell_job(session, slot) for slot in slots):
            session.rollback()
            slots = []
    for slot in slots:
        logger.warning("slot %d of %s is in quarantine since %s", slot.index, slot.node, slot.quarantined_at)


def _tell_job(session: Session, slot: Slot) -> bool:
    """False: somebody is at the job now."""
    if slot.attempt_id is None:  # something was found on a free slot
        return True
    attempt = session.get_one(Attempt, slot.attempt_id)
    job = try_lock_job(session, attempt.job_id)
    if job is None:
        return False
    message = (
        f"slot {slot.index} of {slot.node} is in quarantine for more than {OVERDUE_SECONDS / 60:g} minutes: "
        "the node does not find it empty of this attempt; an admin may release it"
    )
    payload = {"attempt": attempt.number, "message": message}
    events.append(session, job, "warning", actor=SCHEDULER, payload=payload)
    return True
