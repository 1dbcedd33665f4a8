"""`barlow-train --ranks N`: the ranks of a run by hand, all on this host, as processes of this one.

They meet at a file that this account alone can reach, so no port is opened for them to meet. Nothing here loads torch.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TextIO

from barlow_lab.environment import PARENT_PID, RENDEZVOUS_FILE
from barlow_lab.foreign_text import shown
from trainer import temporary
from trainer.runtime import signals

GPUS = "CUDA_VISIBLE_DEVICES"
PEER_SECONDS = 10.0
"""What is left to the other ranks when one has failed, or when a Ctrl-C after a request to stop was handed on: they
name the cause."""
LOOK_SECONDS = 0.1
JOIN_SECONDS = 2.0
"""What is left to last lines: of ranks that were killed, or out of a pipe that something of a dead rank holds open."""
LONGEST_PIECE = 1 << 16


def launch(command: Sequence[str], ranks: int) -> int:
    """Run `command` as `ranks` ranks until all have ended; returns 0 if each ended with 0, else 1.

    What they print goes on to the same stream of this process, line by line with `[rank] ` before it. INT, TERM, HUP
    and USR1 are handed on. The first rank that fails ends the others, and when this process ends, however it does, the
    kernel ends all of them.

    Raises:
        ValueError: there are not as many GPUs to choose from as ranks.
        OSError: a rank cannot be started; none is left behind.
    """
    heard = signals.hold()
    folder = temporary.make("barlow-train-")
    try:
        processes = _Ranks(command, environments(ranks, folder / "rendezvous", os.environ), heard)
        try:
            return _watch(processes)
        finally:
            processes.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environments(ranks: int, meeting: Path, shell: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment of each rank, from that of the shell; the ranks meet at the file `meeting`.

    Raises:
        ValueError: as `gpus`.
    """
    threads = shell.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // ranks))
    return [
        {
            **shell,
            **_same_code(shell),
            "OMP_NUM_THREADS": threads,
            **({} if gpu is None else {GPUS: gpu}),
            PARENT_PID: str(os.getpid()),
            RENDEZVOUS_FILE: str(meeting),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "PYTHONIOENCODING": "utf-8",
        }
        for rank, gpu in enumerate(gpus(ranks, shell.get(GPUS)))
    ]


def _same_code(shell: Mapping[str, str]) -> dict[str, str]:
    """PYTHONPATH with this checkout first, where `python -P -m trainer` would run another one than this, or none."""
    package = __name__.partition(".")[0]
    specs = (finder.find_spec(package, None) for finder in sys.meta_path)
    found = next((spec.origin for spec in specs if spec is not None), None)
    this = Path(__file__).parent
    if found is not None and Path(found).resolve().parent == this.resolve():
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(this.parent.absolute()), *filter(None, [shell.get("PYTHONPATH")])])}


def gpus(ranks: int, named: str | None) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each rank: one GPU of its own out of those that are `named`; the CPU where none is.

    None where nothing is named: the ranks see all GPUs, and each takes the one of its number.

    Raises:
        ValueError: some are named, and not as many as ranks.
    """
    if named is None:
        return [None] * ranks
    listed = takewhile(lambda name: name and not name.startswith("-"), map(str.strip, named.split(",")))
    found = list(dict.fromkeys(listed))
    if found and len(found) < ranks:
        raise ValueError(
            f"--ranks {ranks}: {GPUS}={named} names {len(found)} GPU(s), and each rank needs one of its own. Name "
            f"more, or start fewer ranks; with {GPUS} set to nothing they compute on the CPU"
        )
    return list(found[:ranks]) or [named] * ranks


class _Ranks:
    """The processes, rank by rank, each in a session of its own: a Ctrl-C of the terminal reaches them once, by us."""

    def __init__(
        self, command: Sequence[str], environments: Sequence[Mapping[str, str]], heard: set[signal.Signals]
    ) -> None:
        self._heard = heard
        self._out, self._err = _Stream(1, sys.stdout), _Stream(2, sys.stderr)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._said: SimpleQueue[str | None] = SimpleQueue()
        self._pumps = [threading.Thread(target=_pump_said, args=(self._said, self._err), daemon=True)]
        self._pumps[0].start()
        self._killed = False
        try:
            for rank, environment in enumerate(environments):
                process = subprocess.Popen(
                    command,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                self._processes.append(process)
                for pipe, stream in ((process.stdout, self._out), (process.stderr, self._err)):
                    assert pipe is not None
                    pump = threading.Thread(target=_pump, args=(rank, pipe, stream), daemon=True)
                    pump.start()
                    self._pumps.append(pump)
        except BaseException:
            self.close()
            raise

    def statuses(self) -> list[int | None]:
        """Exit status per rank; None: still running, negative: ended by that signal.

        What a dead rank leaves in its session is killed while the zombie still holds the number of the group.
        """
        for rank, process in enumerate(self._processes):
            if process.returncode is None and _is_zombie(process.pid):
                _signal_group(process.pid, signal.SIGKILL)
                status = process.wait()
                if status < 0 and not self._killed:
                    hint = ", by hand or by the kernel for want of memory" if status == -signal.SIGKILL else ""
                    self.say(f"rank {rank} was ended by {signal.Signals(-status).name}{hint}")
        return [process.returncode for process in self._processes]

    def signal(self, number: int) -> None:
        """Send a signal to every rank that still runs, and to what it started."""
        for process, status in zip(self._processes, self.statuses(), strict=True):
            if status is None:
                _signal_group(process.pid, number)

    def kill(self, why: str) -> None:
        """Kill what still runs."""
        left = [str(rank) for rank, status in enumerate(self.statuses()) if status is None]
        told, self._killed = self._killed, True
        self.signal(signal.SIGKILL)
        if left and not told:
            self.say(f"killed rank {', '.join(left)}: {why}")

    def close(self) -> None:
        """Kill what still runs, wait for all of it and for the last lines.

        Where nothing was killed, whoever reads them may take their time; a request to stop ends the waiting.
        """
        patient = None not in self.statuses() and not self._killed
        self._killed = True
        self.signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()
        self._said.put(None)
        moved = time.monotonic()
        for pump in self._pumps:
            while pump.is_alive() and time.monotonic() - moved < JOIN_SECONDS:
                pump.join(LOOK_SECONDS)
                patient = patient and self.heard(0) in (None, signal.SIGUSR1)
                if not pump.is_alive() or (patient and (self._out.is_held() or self._err.is_held())):
                    moved = time.monotonic()

    def heard(self, seconds: float) -> int | None:
        """The next signal that came, at most `seconds` from now."""
        if not signal.sigpending() & self._heard:
            time.sleep(seconds)
        # Asked for only where there is one: a wait in which this process was stopped (Ctrl-Z) and went on again gives
        # a number that nobody sent (CPython 3.11 to 3.13).
        coming = signal.sigpending() & self._heard
        got = signal.sigtimedwait(coming, 0) if coming else None
        return None if got is None else got.si_signo

    def say(self, line: str) -> None:
        """Have a line told by a thread of its own: who reads our output may not take it now, and ranks come first."""
        self._said.put(f"barlow-train: {line}\n")


def _watch(ranks: _Ranks) -> int:
    asked, interrupted, deadline = False, False, None
    while None in (statuses := ranks.statuses()):
        if deadline is None and (any(statuses) or interrupted):
            deadline = time.monotonic() + PEER_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            why = "an interrupt after the request to stop" if interrupted else "another one had failed"
            ranks.kill(f"still there {PEER_SECONDS:g} s after {why}")
        number = ranks.heard(LOOK_SECONDS)
        if number is not None:
            interrupted = interrupted or (asked and number == signal.SIGINT)
            asked = asked or number in signals.STOPS
            ranks.signal(number)
    return 1 if any(statuses) else 0


class _Stream:
    """Lines of several threads on one stream of ours, each whole. That nobody reads it any more stops no training."""

    def __init__(self, descriptor: int, stream: TextIO | None) -> None:
        self._descriptor = descriptor
        self._encoding = (stream.encoding if stream is not None else None) or "utf-8"
        self._turn = threading.Lock()

    def write(self, line: str) -> None:
        data = line.encode(self._encoding, "backslashreplace")
        with self._turn, contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def is_held(self) -> bool:
        """Whether a line is on its way, as all the time where the reader is slow."""
        return self._turn.locked()


def _pump(rank: int, pipe: IO[bytes], stream: _Stream) -> None:
    with pipe:
        while line := pipe.readline(LONGEST_PIECE):
            text = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
            stream.write(f"[{rank}] {shown(text, keep=chr(9))}\n")


def _pump_said(said: SimpleQueue[str | None], stream: _Stream) -> None:
    while (line := said.get()) is not None:
        stream.write(line)


def _is_zombie(pid: int) -> bool:
    """Whether our child ended; it is not reaped, so its number cannot be given to another process yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
