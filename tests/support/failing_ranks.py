"""A run whose rank 1 fails while rank 0 waits for something else: `python failing_ranks.py SPEC RUN_DIR`."""

import sys
import time
from pathlib import Path

import torch.distributed as dist

from trainer.data.errors import DataError
from trainer.execution import execute
from trainer.runtime import watchdog
from trainer.train_state import TrainState, Update

AT_STEP = 4
_update = TrainState.update


def failing_update(self: TrainState, view_a: object, view_b: object, step: int, *more: object) -> Update:
    """At AT_STEP rank 1 cannot read its data, and rank 0 is stuck for ever."""
    if step == AT_STEP and dist.get_rank() == 1:
        raise DataError("image 7 cannot be loaded")
    if step == AT_STEP:
        time.sleep(600)
    return _update(self, view_a, view_b, step, *more)  # type: ignore[arg-type]


if __name__ == "__main__":
    TrainState.update = failing_update  # type: ignore[method-assign,assignment]
    watchdog.PEER_SECONDS = 1.0
    execute(Path(sys.argv[1]), Path(sys.argv[2]), attempt=None, backbone=None, threads=1)
