"""A record that is followed, and the newest part of it, from which all its followers take."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from service.ledger.states import JobState

BACKLOG_BYTES = 128 * 1024
"""What a feed keeps, at most, but for one piece that is larger."""

Position = int


@dataclass(frozen=True, slots=True)
class Piece:
    """Messages that belong together: where they begin in the record, where they end, and what is sent of them."""

    start: Position
    end: Position
    data: bytes


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What the one statement says of a job: its last event, and its state."""

    events: int
    state: JobState


class Record(Protocol):
    """What a feed is of. `newest` and `read` block, and are called in threads."""

    def newest(self, look: JobStatus) -> Position:
        """A place near the end to begin at: most of who follow begin behind it, or are soon there."""

    def read(self, start: Position, until: Position | None, ended: bool) -> Piece | None:
        """What there is from `start` on, of bounded size: up to `until`, or as far as it is whole; None: nothing."""

    def may_have_grown(self, look: JobStatus, end: Position) -> bool:
        """Whether there may be more behind `end`."""


@dataclass(slots=True)
class Feed:
    """The newest part of one record."""

    record: Record
    followers: int = 0
    pieces: deque[Piece] = field(default_factory=deque)
    end: Position | None = None
    """Where the record ends, as far as it was read; None: nobody has looked yet."""
    ended: JobState | None = None
    """The state of a job that has ended and whose record was read to its end."""
    size: int = 0
    failed: Exception | None = None
    reading: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def floor(self) -> Position | None:
        """Where what is kept here begins; who is before it reads for himself."""
        return self.pieces[0].start if self.pieces else self.end

    def take(self, piece: Piece) -> None:
        """Add what was read at the end."""
        self.pieces.append(piece)
        self.end = piece.end
        self.size += len(piece.data)
        while self.size > BACKLOG_BYTES and len(self.pieces) > 1:
            self.size -= len(self.pieces.popleft().data)
        self.changed()

    def after(self, position: Position) -> Piece | None:
        """The piece that holds what comes at `position`; None: that is not kept here."""
        for piece in reversed(self.pieces):
            if piece.start <= position:
                return piece if position < piece.end else None
        return None

    def changed(self) -> None:
        """Wake all followers."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, seconds: float) -> bool:
        """Wait until something has changed; False: nothing has, for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
                return True
        return False
