"""The lease of one attempt: renewed in a thread of its own, so that a slow database delays nothing else."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.ledger import attempts
from service.settings import Settings
from worker import clock
from worker.log_text import first_line

RETRY_SECONDS = 1.0
JOIN_SECONDS = 30.0

log = logging.getLogger(__name__)


class Lease:
    """Holds an accepted attempt.

    A renewal that fails says nothing: the lease may hold or not. So its end is counted from when the last accepted
    renewal was *sent*, and the trainer is told to stop `margin` seconds before, time enough for a checkpoint, a
    grace and a kill. A renewal that is refused says that we are a ghost.

    `stop` is what is asked of the attempt as of the last renewal: a cancel before a pause before a preemption; None
    again where a pause was withdrawn.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        settings: Settings,
        attempt_id: UUID,
        token: UUID,
        *,
        sent: float,
        alive: Path,
    ) -> None:
        """`sent`: when the accepting request was sent, by worker.clock.

        `alive` has for its time of change, by that clock, when the last accepted renewal was sent: its age is that of
        the lease, however late an answer comes and however late a rank begins to look.
        """
        self.ghost = False
        self.stop: attempts.Stop | None = None
        self._sessions = sessions
        self._settings = settings
        self._attempt_id = attempt_id
        self._token = token
        self._sent = sent
        self._alive = alive
        self._lapsed = False
        self._running = False
        self._stopping: str | None = None
        self._told: tuple[bool, str | None] = (False, None)
        self._ended = False
        self._turn = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease-{attempt_id}", daemon=True)

    @property
    def margin(self) -> float:
        """Seconds before the end of the lease at which the trainer is told to stop."""
        return min(2 * self._settings.stop_grace_seconds, self._settings.lease_seconds / 2)

    @property
    def alive_seconds(self) -> float:
        """How old `alive` may get before a rank ends itself: it is gone before anybody else may start the job."""
        return self._settings.lease_seconds - self.margin / 5

    @property
    def lapsed(self) -> bool:
        """Whether `alive` was at some time so old that the ranks may have ended themselves."""
        return self._lapsed or clock.now() - self._sent > self.alive_seconds

    def left(self) -> float:
        """Seconds until the trainer must be told to stop."""
        return self._sent + self._settings.lease_seconds - self.margin - clock.now()

    def start(self) -> None:
        """Begin to renew."""
        self._alive.touch()
        self._renewed(self._sent)
        self._thread.start()

    def renew_now(self) -> None:
        """Renew at once: the answer says what the users ask for."""
        self._turn.set()

    def running(self) -> None:
        """Have the ledger told, as soon as it answers, that the ranks are up."""
        self._running = True
        self._turn.set()

    def stopping(self, why: str) -> None:
        """Have the ledger told, as soon as it answers, that the ranks were asked to stop."""
        self._stopping = why
        self._turn.set()

    def end(self) -> None:
        """Renew no more; it may not have begun. A renewal that stands at a disk that does not answer is left behind."""
        self._ended = True
        self._turn.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        failing = False
        while not self._ended:
            self._turn.wait(RETRY_SECONDS if failing else self._settings.heartbeat_seconds)
            self._turn.clear()
            if self._ended or self.ghost:
                return
            try:
                self._renew()
                failing = False
            except (SQLAlchemyError, OSError) as error:
                failing = True
                log.warning("attempt %s: the lease was not renewed: %s", self._attempt_id, first_line(error))

    def _renew(self) -> None:
        sent, tell = clock.now(), (self._running, self._stopping)
        with self._sessions.begin() as session:
            mine = self._tell(session, *tell)
            renewal = attempts.renew(session, self._attempt_id, self._token, lease_seconds=self._settings.lease_seconds)
        if renewal is None or not mine:
            self.ghost = True
            return
        self._told = tell
        self._renewed(sent)
        self.stop = renewal.stop

    def _renewed(self, sent: float) -> None:
        self._lapsed = self.lapsed
        self._sent = sent
        os.utime(self._alive, (sent, sent))

    def _tell(self, session: Session, running: bool, stopping: str | None) -> bool:
        if stopping is not None and self._told[1] is None:
            return attempts.stopping(session, self._attempt_id, self._token, why=stopping)
        if running and not self._told[0] and stopping is None:
            return attempts.running(session, self._attempt_id, self._token)
        return True
