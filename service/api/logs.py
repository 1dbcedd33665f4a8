"""The log of a job: the logs of its attempts, one after another, addressed by byte."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from barlow_lab.given_files import open_regular
from barlow_lab.run_folder import LOG, run_folder
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Log:
    """Files that read as one; the last one may still grow."""

    files: list[tuple[Path, int]]

    @property
    def size(self) -> int:
        """Bytes there are now."""
        return sum(size for _, size in self.files)

    def read(self, offset: int, limit: int) -> bytes:
        """The log from byte `offset` on, at most `limit` bytes."""
        out = bytearray()
        start = 0
        for path, size in self.files:
            if start <= offset < start + size and len(out) < limit:
                with open_regular(path) as file:
                    file.seek(offset - start)
                    piece = file.read(min(limit - len(out), start + size - offset))
                out += piece
                offset += len(piece)
            start += size
        return bytes(out)

    def lines(self, offset: int, limit: int) -> bytes:
        """Whole lines from byte `offset`, about `limit` bytes of them; a longer line comes in pieces."""
        piece = self.read(offset, limit)
        end = piece.rfind(b"\n") + 1
        if end:
            return piece[:end]
        return piece if len(piece) == limit else b""


def open_log(settings: Settings, job_id: uuid.UUID, attempt: int | None) -> Log:
    """The log of one attempt, or of all. Attempts that have written nothing yet are left out."""
    folder = run_folder(settings.runs_dir, job_id).resolve() / "attempts"
    pattern = "[0-9]*" if attempt is None else f"{attempt:04d}"
    files = []
    for path in sorted(folder.glob(f"{pattern}/{LOG}")):
        if path.resolve().is_relative_to(folder) and path.is_file():
            files.append((path, path.stat().st_size))
    return Log(files)
