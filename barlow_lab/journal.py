"""The journal of one attempt: one JSON object a line, appended by rank 0, read by the recorder from an offset.

The reader takes only whole lines: a line without its newline is a line not yet written, so a kill at any byte
leaves a journal that reads well. A resumed attempt has a journal of its own; nobody appends to another's.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from barlow_lab.disk import naming
from barlow_lab.given_files import open_regular, parse_json

Kind = Literal[
    "data", "started", "progress", "metrics", "correlation", "checkpoint", "image", "result", "warning",
    "stopped", "failed", "finished",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """One journal line. `at` is seconds since the epoch; `offset` is the byte after the line."""

    seq: int
    at: float
    kind: str
    step: int | None
    epoch: int | None
    data: dict[str, Any]
    offset: int


class Journal:
    """Appends events to a new file at `path`; an event that could not be written whole is taken back.

    Any thread may append: the lines are whole, in the order of `seq` and of `at`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()
        self._seq = 0
        self._size = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, kind: Kind, *, step: int | None = None, epoch: int | None = None, **data: Any) -> None:
        """Append one event.

        Raises:
            ValueError: `data` holds a non-finite number; JSON has no word for it.
            OSError: the disk did not take the whole line; names the file. Nothing of it stays in the journal.
        """
        assert not data.keys() & {"seq", "at"}, "seq and at are the journal's own"
        with self._turn:
            line = {
                "seq": self._seq + 1,
                "at": round(time.time(), 6),
                "kind": kind,
                "step": step,
                "epoch": epoch,
                **data,
            }
            text = json.dumps(line, allow_nan=False, separators=(",", ":")).encode() + b"\n"
            try:
                with naming(self._path):
                    rest = memoryview(text)
                    while rest:
                        rest = rest[os.write(self._fd, rest) :]
            except BaseException:
                # A full disk takes half a line; the next event must not be glued to it.
                os.ftruncate(self._fd, self._size)
                raise
            self._seq += 1
            self._size += len(text)

    def metrics(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Append one point per metric; non-finite values are named in `non_finite` instead."""
        finite = {k: v for k, v in values.items() if math.isfinite(v)}
        rest = {} if len(finite) == len(values) else {"non_finite": sorted(set(values) - set(finite))}
        self.append("metrics", step=step, epoch=epoch, values=finite, **rest)

    def sync(self) -> None:
        """Force what was appended before to the disk; other threads go on appending meanwhile."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file; nothing may be appended afterwards."""
        os.close(self._fd)


def read_events(path: Path, offset: int = 0, limit: int | None = None) -> Iterator[JournalEvent]:
    """Whole lines of the journal from byte `offset`, at most `limit` of them; nothing if there is no file yet.

    Raises:
        ValueError: a line is not a journal event; names the file and the byte.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for count, raw in enumerate(file):
            if not raw.endswith(b"\n") or count == limit:
                return
            try:
                line: dict[str, Any] = parse_json(raw)
                fields = {k: line.pop(k) for k in ("seq", "at", "kind", "step", "epoch")}
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise ValueError(f"{path}: byte {offset} does not begin a journal event: {error}") from error
            offset += len(raw)
            yield JournalEvent(**fields, data=line, offset=offset)
