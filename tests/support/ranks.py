"""Real ranks for tests: processes that meet at a file, as a worker spawns them."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """An environment for one thread a rank and no GPU; output is buffered, as Python does by default."""
    others = ("BARLOW_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "PYTHONUNBUFFERED")
    base = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**base, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path, **more}


def start(command: Sequence[object], ranks: int, folder: Path, **more: str) -> list[subprocess.Popen[bytes]]:
    """Start `python command...` once per rank; their output goes to `folder`/rank-N.log."""
    processes = []
    meeting = folder / f"rendezvous-{uuid.uuid4().hex}"
    for rank in range(ranks):
        place = {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
        with (folder / f"rank-{rank}.log").open("ab") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *map(str, command)],
                    env=environment(**place, BARLOW_RENDEZVOUS_FILE=str(meeting), **more),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def finish(processes: Sequence[subprocess.Popen[bytes]], timeout: float = 120) -> list[int]:
    """Exit statuses; whatever still runs after `timeout` seconds is killed and the test fails."""
    try:
        return [process.wait(timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def log(folder: Path, rank: int | None = None) -> str:
    """What the ranks printed, one after the other, or one of them."""
    files = sorted(folder.glob("rank-*.log")) if rank is None else [folder / f"rank-{rank}.log"]
    return "".join(file.read_text("utf-8", "replace") for file in files)
