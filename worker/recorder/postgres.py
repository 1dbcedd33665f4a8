"""Journals → Postgres: a batch of lines and the watermark behind them in one transaction, so every line counts once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from barlow_lab.given_files import open_regular
from barlow_lab.journal import JournalEvent, read_events
from barlow_lab.run_folder import JOURNAL, attempt_folder, attempt_folders, run_folder
from service.database.tables import Job, Watermark
from service.ledger.states import JobState
from service.recording import POSTGRES
from service.storable import storable
from worker.recorder.rows import RowWriter

BATCH = 2000
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, DataError, IntegrityError)
"""What a line brings about that is whole JSON and yet no event."""

log = logging.getLogger(__name__)


class PostgresRecorder:
    """Records journals into the run database. Any number of them may run: the watermark's row lock takes turns."""

    def __init__(self, sessions: sessionmaker[Session], runs_dir: Path) -> None:
        self._sessions = sessions
        self._runs_dir = runs_dir

    def pending(self) -> list[UUID]:
        """Jobs with something left to record whose run directory is visible here."""
        with self._sessions() as session:
            jobs = session.scalars(select(Watermark.job_id).where(Watermark.target == POSTGRES, ~Watermark.complete))
            return [job for job in jobs if run_folder(self._runs_dir, job).exists()]

    def flush(self, job_id: UUID, tick: Callable[[], None] = lambda: None) -> None:
        """Record all that is journalled now; waits for another recorder that is at it. Calls `tick` for each batch."""
        while self.record(job_id, wait=True):
            tick()

    def record(self, job_id: UUID, *, wait: bool = False) -> bool:
        """Record one batch of a job; returns whether there may be more."""
        with self._sessions.begin() as session:
            mark = session.scalar(
                select(Watermark)
                .where(Watermark.job_id == job_id, Watermark.target == POSTGRES)
                .with_for_update(skip_locked=not wait)
            )
            if mark is None or mark.complete:
                return False
            # Read before the journals: what is terminal now writes no further line.
            terminal = JobState(session.scalars(select(Job.state).where(Job.id == job_id)).one()).terminal
            run = run_folder(self._runs_dir, job_id)
            number, offset = mark.position.get("attempt", 1), mark.position.get("offset", 0)
            piece = _Piece(attempt_folder(run, number) / JOURNAL, offset)
            if piece.end > offset:
                _write(RowWriter(session, job_id, number, run), piece)
                mark.position = {"attempt": number, "offset": piece.end}
            elif (successor := _next_journal(run, number)) is not None:
                mark.position = {"attempt": successor, "offset": 0}
            else:
                mark.complete = terminal
                return False
            mark.updated_at = datetime.now(UTC)
            return True


class _Piece:
    """The next whole lines of a journal, at most `BATCH`, and the byte after them.

    It ends at a damaged line: one that begins it is `damaged`, its only one.
    """

    def __init__(self, journal: Path, begin: int) -> None:
        self.begin = self.end = begin
        self.lines: list[JournalEvent] = []
        self.damaged: str | None = None
        try:
            for line in read_events(journal, begin, BATCH):
                self.lines.append(replace(line, data=storable(line.data)))
                self.end = line.offset
        except ValueError as error:
            if not self.lines:
                self.damaged = str(error.__cause__ or error)
                with open_regular(journal) as file:
                    file.seek(begin)
                    self.end = begin + len(file.readline())


def _write(rows: RowWriter, piece: _Piece) -> None:
    """Record a piece; a line that cannot be recorded is left out and reported, the others count."""
    if piece.damaged is not None:
        rows.left_out(piece.begin, piece.damaged)
        return
    if _recorded(rows, piece.lines) is None:
        return
    begin = piece.begin
    for line in piece.lines:
        if (error := _recorded(rows, [line])) is not None:
            rows.left_out(begin, f"{type(error).__name__}: {error}")
        begin = line.offset


def _recorded(rows: RowWriter, lines: Sequence[JournalEvent]) -> Exception | None:
    """None if the lines are recorded; else nothing of them is, for this reason."""
    try:
        with rows.session.begin_nested():
            rows.write(lines)
    except UNREADABLE as error:
        return error
    return None


def _next_journal(run: Path, number: int) -> int | None:
    later = (n for n, folder in attempt_folders(run).items() if n > number and (folder / JOURNAL).exists())
    return min(later, default=None)
