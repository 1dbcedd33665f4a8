"""The end of an attempt as its trainer left it on the volume, told to the ledger with its backbone.

The worker concludes its own attempts here; where a worker died after outcome.json, the scheduler or the worker's
successor completes the attempt from that file instead of running it again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, ProgrammingError
from sqlalchemy.orm import Session

from barlow_lab.disk import sha256_of
from barlow_lab.foreign_text import shown
from barlow_lab.given_files import open_regular, read_json
from barlow_lab.run_folder import BACKBONE, BACKBONE_WEIGHTS, LOG, OUTCOME, attempt_folder, publish_backbone, run_folder
from service.database.tables import Attempt, Checkpoint
from service.ledger import attempts
from service.ledger.states import AttemptOutcome
from service.storable import storable

LOG_TAIL_LINES = 40
UNUSABLE = (OSError, ValueError, KeyError, TypeError, DataError, ProgrammingError)
"""What an outcome.json brings about that is damaged, or is whole JSON of another shape, and a backbone that is away.
It must cost its own attempt, not the scheduler that reads it."""

logger = logging.getLogger("service.completion")


STOPPED_BY = {
    "cancel": (AttemptOutcome.STOPPED, "stopped: cancelled"),
    "pause": (AttemptOutcome.STOPPED, "stopped: paused"),
    "preempt": (AttemptOutcome.STOPPED, "stopped: made room for a job of higher priority"),
    "drain": (AttemptOutcome.DRAINED, "stopped: its worker was told to go"),
    "lease": (AttemptOutcome.LOST, "stopped: the run database was away for longer than the lease allows"),
}
"""What a stop request makes of an attempt that did not get to its own end, whoever is the one to tell of it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, as the ledger takes it. `step` and `backbone` are those of a trainer that said them."""

    outcome: AttemptOutcome
    message: str
    result: dict[str, Any] | None = None
    traceback: str | None = None
    step: int | None = None
    backbone: str | None = None

    @classmethod
    def said(cls, outcome: dict[str, Any]) -> Ending:
        """What an outcome.json says. One of before this field has no `reason`."""
        name, message = AttemptOutcome(outcome["outcome"]), outcome["message"]
        if name is AttemptOutcome.STOPPED:
            name, message = STOPPED_BY.get(outcome.get("reason") or "", (name, message))
        return cls(
            name,
            message,
            outcome["result"],
            outcome["traceback"],
            outcome["step"],
            outcome["backbone"],
        )

    def error(self, log_tail: Sequence[str]) -> dict[str, Any]:
        """What the user sees if the job fails by this end."""
        return {
            "class": str(self.outcome),
            "message": self.message,
            "log_tail": list(log_tail),
            "traceback": self.traceback,
        }


class Completion:
    """Ends attempts from what lies in their folders below `runs_dir`."""

    def __init__(self, runs_dir: Path, *, backoff_seconds: float) -> None:
        """`backoff_seconds`: the wait before a job's first retry."""
        self._runs_dir = runs_dir
        self._backoff_seconds = backoff_seconds

    def __call__(self, session: Session, attempt: Attempt, *guards: ColumnElement[bool], actor: str) -> bool:
        """End an attempt without its worker, by its outcome.json; its slots are quarantined.

        False: its trainer has left none under this attempt's token, the volume is not to be read here, or the
        attempt has ended or a guard does not hold.
        """
        folder = attempt_folder(run_folder(self._runs_dir, attempt.job_id), attempt.number)
        try:
            outcome = read_outcome(folder, attempt.token)
            if outcome is None:
                return False
            with session.begin_nested():
                done = self.conclude(session, attempt, Ending.said(outcome), *guards, actor=actor, vacated=False)
        except UNUSABLE as error:
            session.expire_all()  # the rows are as before again, what the session remembers of them is not
            logger.error(
                "attempt %d of job %s left an end that cannot be used: %s", attempt.number, attempt.job_id, error
            )
            return False
        if done:
            logger.info("attempt %d of job %s is completed from its outcome.json", attempt.number, attempt.job_id)
        return done

    def conclude(
        self,
        session: Session,
        attempt: Attempt,
        end: Ending,
        *guards: ColumnElement[bool],
        actor: str,
        vacated: bool,
        tick: Callable[[], None] = lambda: None,
        look: bool = True,
    ) -> bool:
        """End an accepted attempt in the ledger and publish its backbone, in the caller's transaction.

        `vacated`: its processes are known to be gone. `tick` is called for each piece, and before one that cannot be
        undone. Without `look` no file is read, not even its log: the end is that their disk does not answer.
        False: the caller is a ghost, or a guard does not hold.

        Raises:
            OSError: the exported backbone cannot be read or published.
        """
        run = run_folder(self._runs_dir, attempt.job_id)
        folder = attempt_folder(run, attempt.number)
        accepted = attempts.end(
            session,
            attempt.id,
            attempt.token,
            *guards,
            outcome=end.outcome,
            message=storable(end.message),
            result=storable(end.result),
            error=storable(end.error(log_tail(folder / LOG, LOG_TAIL_LINES) if look else [])),
            actor=actor,
            backoff_seconds=self._backoff_seconds,
            vacated=vacated,
        )
        if accepted and end.outcome is AttemptOutcome.OK and end.backbone is not None:
            # The row locks of the end stand until the commit: nobody else can be at this job meanwhile.
            publish_backbone(run, folder / end.backbone, tick)
            row = _backbone_row(session, attempt, run / BACKBONE / BACKBONE_WEIGHTS, end.step or 0, tick)
            session.execute(insert(Checkpoint).values(row).on_conflict_do_nothing())
        return accepted


def read_outcome(folder: Path, token: UUID) -> dict[str, Any] | None:
    """outcome.json, if the attempt with this token wrote it; None: there is none, or it is another attempt's."""
    try:
        outcome = read_json(folder / OUTCOME)
    except FileNotFoundError:
        return None
    return outcome if isinstance(outcome, dict) and outcome.get("token") == str(token) else None


def log_tail(path: Path, lines: int) -> list[str]:
    """The last `lines` lines of a log, long lines cut; empty if there is none that can be read."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 500 * lines))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [shown(line, keep="\t")[:1000] for line in text.removesuffix("\n").split("\n")[-lines:]] if text else []


def _backbone_row(
    session: Session, attempt: Attempt, weights: Path, step: int, tick: Callable[[], None]
) -> dict[str, object]:
    def read() -> None:
        # The server ends a session that is silent for long within a transaction.
        session.execute(select(1))
        tick()

    return {
        "job_id": attempt.job_id,
        "attempt": attempt.number,
        "step": step,
        "kind": "backbone",
        "uri": BACKBONE,
        "sha256": sha256_of(weights, read),
        "bytes": weights.stat().st_size,
        "created_at": datetime.now(UTC),
    }
