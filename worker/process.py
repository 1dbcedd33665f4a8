"""The ranks of an attempt as processes: each its own session, logs in one file, ended by signals, never orphaned."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from barlow_lab.foreign_text import shown
from service import marks
from service.marks import ATTEMPT, Mark, MarkedProcesses
from worker import clock

NODE_BITS, PID_BITS = 39, 22
"""Of the mark's detail: whose node it is, and the worker's process id (Linux gives numbers below 2^22)."""

LONGEST_PIECE = 1 << 16
JOIN_SECONDS = 2.0
END_SECONDS = 30.0
"""A process that was killed is gone by then, unless it is stuck in the kernel."""

log = logging.getLogger(__name__)


class Ranks:
    """The processes of one attempt, rank by rank.

    Each rank leads a session of its own: a signal reaches whatever it started, and nothing of it reaches us. The rank
    itself asks the kernel to be killed when this process dies (trainer, BARLOW_PARENT_PID); a preexec_fn here would
    run Python between fork and exec in a process with many threads.
    """

    def __init__(
        self, command: Sequence[str], environments: Sequence[Mapping[str, str]], log: Path, mark: Mark
    ) -> None:
        """Start one process per environment; their stdout and stderr go to `log`, each line with its `[rank] `, and
        with escapes for what would break it or drive a terminal.

        They and what they start carry `mark`, before the interpreter of a rank has begun.

        Raises:
            OSError: the command cannot be started; no rank is left behind.
        """
        self._log = _Log(log)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pumps: list[threading.Thread] = []
        try:
            for rank, environment in enumerate(environments):
                process = subprocess.Popen(
                    command,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._processes.append(process)
                marks.mark(process.pid, ATTEMPT, mark)
                pump = threading.Thread(target=self._pump, args=(rank, process), name=f"log-{process.pid}", daemon=True)
                pump.start()
                self._pumps.append(pump)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids, rank by rank."""
        return [process.pid for process in self._processes]

    def statuses(self) -> list[int | None]:
        """Exit status per rank; None: still running, negative: ended by that signal.

        What a dead rank leaves in its session is killed while the zombie still holds the number of the group.
        """
        for process in self._processes:
            if process.returncode is None and _is_zombie(process.pid):
                _kill_group(process.pid, signal.SIGKILL)
                process.wait()
        return [process.returncode for process in self._processes]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every rank that still runs, and to what it started."""
        for process, status in zip(self._processes, self.statuses(), strict=True):
            if status is None:
                _kill_group(process.pid, number)

    def close(self) -> list[int]:
        """Kill what still runs, wait for all of it and for the rest of the log. Returns the exit statuses."""
        self.signal(signal.SIGKILL)
        statuses = [process.wait() for process in self._processes]
        for pump in self._pumps:
            pump.join(JOIN_SECONDS)
        self._log.close()
        return statuses

    def _pump(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        prefix = f"[{rank}] ".encode()
        assert process.stdout is not None
        with process.stdout as pipe:
            while line := pipe.readline(LONGEST_PIECE):
                text = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
                self._log.write(prefix + shown(text, keep="\t").encode() + b"\n")


class _Log:
    """Appends lines of several threads to one file; a full disk loses lines of the log, never the training."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = path.open("ab", buffering=0)

    def write(self, line: bytes) -> None:
        with self._lock:
            try:
                if self._file is not None:
                    self._file.write(line)
            except OSError:
                pass  # the pipe must go on being emptied, or the rank blocks in its next print

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def mark_for(attempt_id: uuid.UUID, node: str) -> Mark:
    """What the ranks of an attempt carry, and all that they start: the attempt, the account's node and this process."""
    return Mark(marks.name_of(str(attempt_id)), (_own(node) << PID_BITS) + os.getpid())


def marked(attempt_id: uuid.UUID) -> list[int]:
    """The processes that carry the mark of the attempt, see `marks.find_marked`."""
    return [
        process.pid
        for process, mark in marks.find_marked(ATTEMPT).marked
        if mark.name == marks.name_of(str(attempt_id))
    ]


def is_gone(attempt_id: uuid.UUID) -> bool:
    """Whether no process of the attempt is left on this host: not while there is one that cannot be asked."""
    found = marks.find_marked(ATTEMPT)
    _complain(found)
    return not found.unknown and all(mark.name != marks.name_of(str(attempt_id)) for _, mark in found.marked)


def end_marked(attempt_id: uuid.UUID) -> bool:
    """Kill what carries the mark of the attempt, also what left its rank's session; says whether all of it is gone."""
    name = marks.name_of(str(attempt_id))
    _end_all(lambda process, mark: mark.name == name)
    return is_gone(attempt_id)


def end_orphans(node: str) -> list[int]:
    """Kill the ranks that a dead worker of this node left behind, and what they started, and wait until they are gone.

    An orphan carries the mark of this node, and the worker that started it is no more. Ranks of a living worker are
    never touched.

    Returns the process ids that were ended.
    """

    def orphan(process: psutil.Process, mark: Mark) -> bool:
        return _is_of(node, process, mark) and not _older_process(mark.detail % (1 << PID_BITS), process)

    return _end_all(orphan)


def devices_in_use(node: str, held: Mapping[str, uuid.UUID | None]) -> set[str]:
    """The GPUs of this node that processes of attempts may use.

    Args:
        held: UUID of each GPU here → the attempt that was given it last, None where nobody knows of one.

    Where a process of another attempt of this node runs on, or one that cannot be asked, it may be at any of them.
    """
    found = marks.find_marked(ATTEMPT)
    _complain(found)
    names = {mark.name for process, mark in found.marked if _is_of(node, process, mark)}
    known = {gpu: marks.name_of(str(attempt)) for gpu, attempt in held.items() if attempt is not None}
    if found.unknown or names - set(known.values()):
        return set(held)
    return {gpu for gpu, name in known.items() if name in names}


def _end_all(wanted: Callable[[psutil.Process, Mark], bool]) -> list[int]:
    """Kill until a look finds nothing more: what is being killed may start others. Returns what was found."""
    found: set[int] = set()
    deadline = clock.now() + END_SECONDS
    while True:
        there = []
        for process, mark in marks.find_marked(ATTEMPT).marked:
            with contextlib.suppress(psutil.Error):
                if wanted(process, mark):
                    there.append(process)
                    process.kill()
        found.update(process.pid for process in there)
        left = deadline - clock.now()
        if left < 0 and there:
            log.warning("processes of an attempt do not end: %s", [process.pid for process in there])
        if left < 0 or not there:
            return sorted(found)
        psutil.wait_procs(there, timeout=left)


def _own(node: str) -> int:
    """The bits for a node of this account: that of every `barlow up` has the same name."""
    return marks.hash_bits(f"{os.getuid()} {node}", NODE_BITS)


def _is_of(node: str, process: psutil.Process, mark: Mark) -> bool:
    """Whether a worker of this account has set the mark, as this node."""
    its_node = mark.detail >> PID_BITS
    if its_node == marks.hash_bits(node, NODE_BITS):
        # Workers of before wrote the name alone; whose they were, their processes say.
        with contextlib.suppress(psutil.NoSuchProcess):
            return bool(process.uids().real == os.getuid())
    return its_node == _own(node)


def _complain(found: MarkedProcesses) -> None:
    if found.unknown:
        log.warning("processes that cannot be looked at may belong to an attempt: %s", found.unknown)


def _older_process(pid: int, child: psutil.Process) -> bool:
    """Whether `pid` is a process that was there before `child`, and not a later one that got its number."""
    try:
        return bool(psutil.Process(pid).create_time() <= child.create_time())
    except psutil.NoSuchProcess:
        return False


def _is_zombie(pid: int) -> bool:
    """Whether our child ended; it is not reaped, so its number cannot be given to another process yet."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, pid, flags) is not None


def _kill_group(pid: int, number: signal.Signals) -> None:
    # macOS refuses a group of zombies; both errors mean that nobody is left to hear it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
