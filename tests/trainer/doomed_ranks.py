"""A run whose rank 0 is killed in the middle of writing a checkpoint: `python doomed_ranks.py SPEC RUN_DIR NTH LINE`.

It ends before the LINEth line of Python that writing the NTH checkpoint of this attempt executes in the trainer's own
files, or right after the checkpoint if there are fewer.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from trainer import disk, journal, outcome
from trainer.execution import execute
from trainer.runtime import checkpoints

FILES = {module.__file__ for module in (checkpoints, disk, journal, outcome)}
_write = checkpoints.write_checkpoint


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Doom:
    def __init__(self, nth: int, line: int) -> None:
        self._checkpoints, self._lines = nth, line

    def write(self, *arguments: Any, **named: Any) -> Path:
        self._checkpoints -= 1
        if self._checkpoints:
            return _write(*arguments, **named)
        sys.settrace(self._trace)
        _write(*arguments, **named)
        _die()
        raise AssertionError

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            self._lines -= 1
            if self._lines <= 0:
                _die()
        return self._trace


if __name__ == "__main__":
    checkpoints.write_checkpoint = _Doom(int(sys.argv[3]), int(sys.argv[4])).write  # type: ignore[assignment]
    sys.exit(execute(Path(sys.argv[1]), Path(sys.argv[2]), attempt=None, backbone=None, threads=1))
