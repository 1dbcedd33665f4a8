"""Room on the volume of the runs: a warning when it runs short, and old checkpoints that give way."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import exists, or_, select, tuple_
from sqlalchemy.orm import Session, aliased, sessionmaker

from barlow_lab.run_folder import run_folder
from barlow_lab.specs.kinds import MAKERS
from service.database.tables import Attempt, Checkpoint, Job
from service.ledger import events
from service.ledger.moves import try_lock_job
from service.ledger.states import AttemptState, JobState
from service.settings import Settings
from worker import checkpoints

OVER_AT = 1.1
"""The shortage is over at this multiple of the reserve, so that one does not end and begin with every checkpoint."""
GIGABYTE = 1e9

log = logging.getLogger(__name__)


class DiskRoom:
    """Keeps `disk_reserve_bytes` free below `runs_dir`, as far as that goes."""

    def __init__(self, settings: Settings, sessions: sessionmaker[Session]) -> None:
        self._settings = settings
        self._sessions = sessions
        self._short = False
        self._told: set[UUID] = set()

    def keep(self) -> None:
        """Look once; when there is less, say so once to every running job of this node and make room."""
        reserve = self._settings.disk_reserve_bytes
        if not self._settings.runs_dir.exists():
            return
        free = self._free()
        if free >= reserve:
            if free >= OVER_AT * reserve:
                self._short = False
            return
        if not self._short:
            self._short = True
            self._told.clear()
            log.warning("%s: oldest deletable checkpoints go first", _said(free, reserve))
        self._warn(free)
        for job_id, checkpoint_id in self._oldest_deletable():
            if self._free() >= reserve:
                return
            self._give_way(job_id, checkpoint_id)

    def _free(self) -> int:
        return shutil.disk_usage(self._settings.runs_dir).free

    def _warn(self, free: int) -> None:
        node, reserve = self._settings.node_name, self._settings.disk_reserve_bytes
        mine = select(Attempt.job_id).where(Attempt.node == node, Attempt.state != AttemptState.ENDED)
        with self._sessions() as session:
            untold = [job_id for job_id in session.scalars(mine) if job_id not in self._told]
        for job_id in untold:
            with self._sessions.begin() as session:
                job = try_lock_job(session, job_id)
                if job is None or job.state != JobState.RUNNING:
                    continue
                facts = {"code": "disk_low", "free_bytes": free, "reserve_bytes": reserve}
                payload = {"message": _said(free, reserve), **facts}
                events.append(session, job, "warning", actor=f"node:{node}", payload=payload)
            self._told.add(job_id)

    def _oldest_deletable(self) -> Iterator[tuple[UUID, int]]:
        """What a finished job keeps only in case: of succeeded ones first, whose backbone is there or which made none,
        then of failed ones what is older than their newest, from which a retry would start."""
        other = aliased(Checkpoint)
        published = exists().where(other.job_id == Job.id, other.kind == "backbone", other.deleted_at.is_(None))
        newer = exists().where(
            other.job_id == Job.id,
            other.kind != "backbone",
            other.deleted_at.is_(None),
            tuple_(other.attempt, other.step) > tuple_(Checkpoint.attempt, Checkpoint.step),
        )
        succeeded = Job.state == JobState.SUCCEEDED
        of_no_use = succeeded & (published | Job.kind.not_in(MAKERS))
        deletable = or_(of_no_use, Job.state.in_([JobState.FAILED, JobState.CANCELLED]) & newer)
        oldest_first = (
            select(Checkpoint.job_id, Checkpoint.id)
            .join(Job, Job.id == Checkpoint.job_id)
            .where(Checkpoint.kind == "last", Checkpoint.deleted_at.is_(None), deletable)
            .order_by(succeeded.desc(), Checkpoint.created_at, Checkpoint.id)
        )
        with self._sessions() as session:
            found = session.execute(oldest_first).all()
        return ((job_id, key) for job_id, key in found if run_folder(self._settings.runs_dir, job_id).exists())

    def _give_way(self, job_id: UUID, checkpoint_id: int) -> None:
        run = run_folder(self._settings.runs_dir, job_id)
        with self._sessions.begin() as session:
            job = try_lock_job(session, job_id)
            if job is None:
                return
            checkpoints.follow_policy(session, job)  # the best one may not be named yet
            rows = checkpoints.recorded(session, job)
            needed = checkpoints.needed_of(session, job, rows)
            marked = [row for row in rows if row.id == checkpoint_id and row.kind == "last" and not needed.holds(row)]
            checkpoints.mark_deleted(session, marked)
            going = checkpoints.doomed(session, job, run)
        for folder in going:
            checkpoints.delete(folder)
        for row in marked:
            log.info("job %s: the checkpoint of step %d gave way", job_id, row.step)


def _said(free: int, reserve: int) -> str:
    gigabytes = [f"{size / GIGABYTE:.1f} GB" for size in (free, reserve)]
    return f"the disk of the runs is nearly full: {gigabytes[0]} free, {gigabytes[1]} are to stay free"
