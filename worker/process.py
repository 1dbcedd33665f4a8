"""The ranks of an attempt as processes: each its own session, logs in one file, ended by signals, never orphaned."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from worker import clock

MARK = "BARLOW_ATTEMPT_ID"
"""Every process of an attempt carries the attempt's id in this environment variable."""
NODE = "BARLOW_NODE_NAME"
PARENT = "BARLOW_PARENT_PID"
"""The worker's process id, and its host's name: whose process it is."""
SECRETS = ("BARLOW_DATABASE_URL", "BARLOW_REDIS_URL", "BARLOW_MLFLOW_URL")
"""Settings of a worker that what it starts has no use for."""

LONGEST_PIECE = 1 << 16
JOIN_SECONDS = 2.0
END_SECONDS = 30.0
"""A process that was killed is gone by then, unless it is stuck in the kernel."""


class Ranks:
    """The processes of one attempt, rank by rank.

    Each rank leads a session of its own: a signal reaches whatever it started, and nothing of it reaches us. The rank
    itself asks the kernel to be killed when this process dies (trainer, BARLOW_PARENT_PID); a preexec_fn here would
    run Python between fork and exec in a process with many threads.
    """

    def __init__(self, command: Sequence[str], environments: Sequence[Mapping[str, str]], log: Path) -> None:
        """Start one process per environment; their stdout and stderr go to `log`, each line with its `[rank] `.

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
                self._log.write(prefix + line + (b"" if line.endswith(b"\n") else b"\n"))


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


def marked(attempt_id: str) -> list[int]:
    """Processes of this host that carry the mark of the attempt."""
    return [process.pid for process, env in _with_mark() if env[MARK] == attempt_id]


def end_marked(attempt_id: str) -> bool:
    """Kill what carries the mark of the attempt, also what left its rank's session; says whether all of it is gone."""
    return not _end_all(lambda process, env: env[MARK] == attempt_id)[1]


def end_orphans(node: str) -> list[int]:
    """Kill the ranks that a dead worker of this node left behind, and what they started, and wait until they are gone.

    An orphan carries the mark and the node's name, and the worker that started it is no more. Ranks of a living
    worker are never touched.

    Returns the process ids that were ended.
    """

    def orphan(process: psutil.Process, env: Mapping[str, str]) -> bool:
        parent = env.get(PARENT, "")
        return env.get(NODE) == node and parent.isdecimal() and not _older_process(int(parent), process)

    return _end_all(orphan)[0]


def devices_in_use() -> set[str]:
    """UUIDs of the GPUs that processes of attempts on this host were given."""
    return {uuid for _, env in _with_mark() for uuid in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if uuid}


def _end_all(wanted: Callable[[psutil.Process, Mapping[str, str]], bool]) -> tuple[list[int], list[int]]:
    """Kill until a look finds nothing more: what is being killed may start others. Returns (found, still there)."""
    found: set[int] = set()
    deadline = clock.now() + END_SECONDS
    while True:
        there = []
        for process, env in _with_mark():
            with contextlib.suppress(psutil.Error):
                if wanted(process, env):
                    process.kill()
                    there.append(process)
        found.update(process.pid for process in there)
        left = deadline - clock.now()
        if not there or left < 0:
            return sorted(found), [process.pid for process in there]
        psutil.wait_procs(there, timeout=left)


def _older_process(pid: int, child: psutil.Process) -> bool:
    """Whether `pid` is a process that was there before `child`, and not a later one that got its number."""
    try:
        return bool(psutil.Process(pid).create_time() <= child.create_time())
    except psutil.NoSuchProcess:
        return False


def _with_mark() -> list[tuple[psutil.Process, dict[str, str]]]:
    found = []
    for process in psutil.process_iter():
        try:
            env = process.environ()
            gone = process.status() == psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue
        if MARK in env and not gone:
            found.append((process, env))
    return found


def _is_zombie(pid: int) -> bool:
    """Whether our child ended; it is not reaped, so its number cannot be given to another process yet."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, pid, flags) is not None


def _kill_group(pid: int, number: signal.Signals) -> None:
    # macOS refuses a group of zombies; both errors mean that nobody is left to hear it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
