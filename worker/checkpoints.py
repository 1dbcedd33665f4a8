"""Which checkpoints of a job stay, which go, and their folders in its run directory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from barlow_lab.run_folder import attempt_folders, checkpoint_folders
from barlow_lab.specs import open_stored
from barlow_lab.specs.retention import CheckpointPlace, Recorded, retained, superfluous
from service.database.tables import Attempt, Checkpoint, Job, Watermark
from service.ledger.states import AttemptState, JobState
from service.recording import POSTGRES

OPEN = [state for state in JobState if not state.terminal]


@dataclass(frozen=True, slots=True)
class Needed:
    """What other work of a job's checkpoints needs: all of them (`whole`), or these steps."""

    whole: bool
    steps: frozenset[int]

    def holds(self, row: Checkpoint) -> bool:
        """Whether this checkpoint is needed."""
        return self.whole or row.step in self.steps


def place(row: Checkpoint) -> CheckpointPlace:
    """Where the checkpoint of this row stands in its run."""
    return CheckpointPlace(row.attempt, row.step)


def recorded(session: Session, job: Job) -> Sequence[Checkpoint]:
    """The checkpoints of a job that are recorded and not deleted, in no order."""
    there = (Checkpoint.job_id == job.id, Checkpoint.kind != "backbone", Checkpoint.deleted_at.is_(None))
    return session.scalars(select(Checkpoint).where(*there), execution_options={"populate_existing": True}).all()


def follow_policy(session: Session, job: Job) -> None:
    """Name the checkpoints of a locked job truthfully, and mark those deleted that its policy does not keep."""
    rows = recorded(session, job)
    kept = retained([_known(row) for row in rows], open_stored(job.spec).run.checkpoint)
    needed = needed_of(session, job, rows)
    for row in rows:
        row.kind = kept.get(place(row), "last")
    mark_deleted(session, [row for row in rows if place(row) not in kept and not needed.holds(row)])


def doomed(session: Session, job: Job, run: Path) -> list[Path]:
    """The folders of a locked job to delete once this transaction is committed.

    Those of marked checkpoints, also where an earlier look did not come to them; of checkpoints that do not count;
    and what is half written or half deleted.
    """
    there = _on_disk(run)
    marked = select(Checkpoint.attempt, Checkpoint.step).where(
        Checkpoint.job_id == job.id, Checkpoint.kind != "backbone", Checkpoint.deleted_at.is_not(None)
    )
    going = {CheckpointPlace(*found) for found in session.execute(marked)}
    rows = recorded(session, job)
    if not needed_of(session, job, rows).whole:
        behind = _recorder_is_at(session, job)
        unrecorded = {at for at in there if at.attempt < behind} - going - {place(row) for row in rows}
        going.update(superfluous(unrecorded, [_known(row) for row in rows]))
    return [*(there[at] for at in sorted(going & there.keys())), *_leftovers(run, _live(session, job))]


def mark_deleted(session: Session, rows: Sequence[Checkpoint]) -> None:
    """Mark checkpoints of a locked job deleted; their folders go after the commit."""
    marked = update(Checkpoint).where(Checkpoint.id.in_([row.id for row in rows]), Checkpoint.deleted_at.is_(None))
    if rows:
        session.execute(
            marked.values(deleted_at=func.clock_timestamp()), execution_options={"synchronize_session": False}
        )


def needed_of(session: Session, job: Job, rows: Sequence[Checkpoint]) -> Needed:
    """What of a locked job's checkpoints `rows` is not to be taken away, whatever the policy says."""
    live = _live(session, job)
    # An attempt that has written none yet may still fall back on any of those before it.
    falls_back = live is not None and all(row.attempt < live for row in rows)
    takers = select(Job.spec).where(Job.source_job_id == job.id, Job.state.in_(OPEN))
    wanted = [open_stored(spec).backbone_from_elsewhere for spec in session.scalars(takers)]
    steps = frozenset(source.step for source in wanted if source is not None and source.step is not None)
    return Needed(falls_back or _is_retried(session, job), steps)


def delete(folder: Path) -> None:
    """Delete a checkpoint's folder, or what is left of one; it may be gone already.

    It is renamed first: what is half deleted is no checkpoint.
    """
    if not folder.name.startswith("."):
        going = folder.with_name(f".{folder.name}.deleted")
        shutil.rmtree(going, ignore_errors=True)
        try:
            folder = folder.rename(going)
        except FileNotFoundError:  # another worker is at it
            return
    shutil.rmtree(folder, ignore_errors=True)


def _known(row: Checkpoint) -> Recorded:
    return Recorded(place(row), row.kind == "milestone", row.score)


def _live(session: Session, job: Job) -> int | None:
    numbers = select(Attempt.number).where(Attempt.job_id == job.id, Attempt.state != AttemptState.ENDED)
    return session.scalars(numbers).one_or_none()


def _is_retried(session: Session, job: Job) -> bool:
    """Whether a job is open that began as a retry of this one, or as a retry of such a retry."""
    retries = select(Job.id, Job.state).where(Job.retry_of == job.id).cte("retries", recursive=True)
    again = aliased(Job)
    retries = retries.union_all(select(again.id, again.state).where(again.retry_of == retries.c.id))
    return session.execute(select(retries.c.id).where(retries.c.state.in_(OPEN)).limit(1)).first() is not None


def _recorder_is_at(session: Session, job: Job) -> float:
    """The attempt whose journal is being recorded: of those before it every line is in the database."""
    mark = session.get(Watermark, (job.id, POSTGRES), populate_existing=True)
    if mark is None:
        return 0
    return float("inf") if mark.complete else mark.position.get("attempt", 1)


def _on_disk(run: Path) -> dict[CheckpointPlace, Path]:
    return {CheckpointPlace(*at): folder for at, folder in checkpoint_folders(run).items()}


def _leftovers(run: Path, live: int | None) -> list[Path]:
    """What was half deleted, and what an attempt that has ended left half written."""
    half = (
        (number, at) for number, attempt in attempt_folders(run).items() for at in attempt.glob("checkpoints/.step-*")
    )
    return [at for number, at in half if at.suffix == ".deleted" or number != live]
