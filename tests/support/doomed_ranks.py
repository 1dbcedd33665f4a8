"""A run whose rank 0 is killed in the middle of writing a checkpoint: `python doomed_ranks.py SPEC RUN_DIR NTH LINE`.

It ends before the LINEth line of Python that writing the NTH checkpoint of this attempt executes in the trainer's own
files, or right after the checkpoint if there are fewer; but not before the loop has journalled a step beyond it.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from fifty_steps import STEPS

from barlow_lab import disk, journal, outcome
from barlow_lab.run_folder import JOURNAL
from trainer.execution import execute
from trainer.runtime import checkpoints
from trainer.runtime.context import Context

FILES = {module.__file__ for module in (checkpoints, disk, journal, outcome)}
_write = checkpoints.write_checkpoint


class _Doom:
    def __init__(self, nth: int, line: int) -> None:
        self._checkpoints, self._lines = nth, line
        self._journal, self._step = Path(), 0

    def write(self, context: Context, *arguments: Any, step: int, **named: Any) -> Path:
        """In the thread that writes checkpoints."""
        self._checkpoints -= 1
        if self._checkpoints:
            return _write(context, *arguments, step=step, **named)
        self._journal, self._step = context.attempt_folder / JOURNAL, step
        sys.settrace(self._trace)
        _write(context, *arguments, step=step, **named)
        sys.settrace(None)
        self._die()
        raise AssertionError

    def _die(self) -> None:
        while self._step < STEPS and not any(
            line.kind == "metrics" and (line.step or 0) > self._step for line in journal.read_events(self._journal)
        ):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            self._lines -= 1
            if self._lines <= 0:
                sys.settrace(None)
                self._die()
        return self._trace


if __name__ == "__main__":
    checkpoints.write_checkpoint = _Doom(int(sys.argv[3]), int(sys.argv[4])).write  # type: ignore[assignment]
    sys.exit(execute(Path(sys.argv[1]), Path(sys.argv[2]), attempt=None, backbone=None, threads=1))
