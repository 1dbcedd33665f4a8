"""Checkpoints of the jobs of this volume: kept and deleted by the spec's policy, and to make room on a full disk.

The row is marked first and committed, then the folder goes: a kill in between leaves a mark, which the next look of
any worker finishes. Any number of workers may look; a job's row lock takes turns.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from datetime import datetime
from uuid import UUID

from sqlalchemy import Engine, select

from barlow_lab.run_folder import run_folder
from service.database.engine import session_factory
from service.database.tables import Job, Watermark
from service.ledger.moves import try_lock_job
from service.recording import POSTGRES
from service.settings import Settings
from worker import checkpoints
from worker.disk_room import DiskRoom
from worker.log_text import first_line

LOOK_SECONDS = 5.0
SWEEP_SECONDS = 1800.0
"""Between two looks at every run directory, also at those of jobs that ended long ago."""
JOIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class Janitor:
    """Deletes what is not to be kept, until it is told to stop."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._runs_dir = settings.runs_dir
        self._sessions = session_factory(engine)
        self._room = DiskRoom(settings, self._sessions)
        self._looked_at: dict[UUID, tuple[datetime, int] | None] = {}
        """Open jobs, with what was known of them when they were looked at; None: they never were."""
        self._told: queue.SimpleQueue[UUID] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Start in a thread of its own; it never keeps the process from exiting."""
        self._thread.start()

    def stop(self) -> None:
        """Stop soon."""
        self._stop.set()
        self._thread.join(JOIN_SECONDS)

    def expect(self, job_id: UUID) -> None:
        """A job is at work here: it is looked at once it is recorded, also if it is not open at any look."""
        self._told.put(job_id)

    def _run(self) -> None:
        swept: float | None = None
        while True:
            try:
                if swept is None or time.monotonic() - swept >= SWEEP_SECONDS:
                    self.sweep()
                    swept = time.monotonic()
                self.look()
            except Exception as error:
                log.warning("checkpoints are looked after again in %.0f s: %s", LOOK_SECONDS, first_line(error))
            if self._stop.wait(LOOK_SECONDS):
                return

    def sweep(self) -> None:
        """Look at every run directory there is."""
        for folder in sorted(self._runs_dir.glob("*")):
            if self._stop.is_set():
                return
            try:
                job_id = UUID(folder.name)
            except ValueError:
                continue
            self._tidy(job_id)

    def look(self) -> None:
        """Look at the jobs of which something was recorded or decided since the last time, and at the disk."""
        for job_id, now in self._changed().items():
            if self._stop.is_set():
                return
            if self._tidy(job_id):
                if now is None:
                    del self._looked_at[job_id]
                else:
                    self._looked_at[job_id] = now
        self._room.keep()

    def _changed(self) -> dict[UUID, tuple[datetime, int] | None]:
        """Jobs to look at; None: all of it is recorded by now, so this look is the last."""
        open_jobs = (
            select(Watermark.job_id, Watermark.updated_at, Job.event_seq)
            .join(Job, Job.id == Watermark.job_id)
            .where(Watermark.target == POSTGRES, ~Watermark.complete)
        )
        while not self._told.empty():
            self._looked_at.setdefault(self._told.get())
        with self._sessions() as session:
            now = {row.job_id: (row.updated_at, row.event_seq) for row in session.execute(open_jobs)}
        changed: dict[UUID, tuple[datetime, int] | None] = {
            job_id: at
            for job_id, at in now.items()
            if self._looked_at.get(job_id) != at and run_folder(self._runs_dir, job_id).exists()
        }
        ended = dict.fromkeys(self._looked_at.keys() - now.keys())
        self._looked_at = dict.fromkeys(changed) | self._looked_at
        return changed | ended

    def _tidy(self, job_id: UUID) -> bool:
        """Bring a job's checkpoints to what its policy says. False: not now; no other job waits for it."""
        try:
            return self._follow_policy(job_id)
        except (OSError, ValueError) as error:
            log.warning("checkpoints of job %s are looked after again: %s", job_id, first_line(error))
            return False

    def _follow_policy(self, job_id: UUID) -> bool:
        run = run_folder(self._runs_dir, job_id)
        with self._sessions.begin() as session:
            job = try_lock_job(session, job_id)
            if job is None:
                return False
            checkpoints.follow_policy(session, job)
            going = checkpoints.doomed(session, job, run)
        for folder in going:
            checkpoints.delete(folder)
        return True
