"""Child processes of the local stack: a log and a session each, stopped by a ladder, found again when orphaned."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from service import marks
from service.marks import STACK, Mark
from service.shell_environment import for_other_servers, of_a_program_of_ours

UNPRIVILEGED = "nobody"
END_SECONDS = 10.0
"""A process that was killed is gone by then, unless it is stuck in the kernel."""

_ACCESS_HEEDS_CAPABILITIES = "--securebits=+no_setuid_fixup"
_AS_IN_EVERY_SHELL = {
    "PYTHONSAFEPATH": "1",
    # Logs are UTF-8 whatever the locale is.
    "PYTHONUTF8": "1",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
    "NO_PROXY": "*",
    "no_proxy": "*",
}


@dataclass
class Child:
    """One child process in a session of its own, so that Ctrl-C in the terminal reaches only `barlow up`.

    `ours`: a program of this product, which gets the environment that its user made, but for what leads elsewhere; a
    server of others gets little of it. Neither takes modules from the folder that `barlow up` was started in.

    `unprivileged` gives up root: PostgreSQL refuses to run as root. The capability to pass through closed folders
    stays, so the stack works below a home of mode 700 and no folder's mode is changed for it. With
    `dies_with_parent` it gets the stop signal when this process ends, however it ends.

    `keeps`: ports of the stack (service.local.ports) that it keeps as this process does. One that sends secrets there
    may outlive this process for a while.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ours: bool = False
    unprivileged: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 20.0
    dies_with_parent: bool = True
    keeps: Sequence[socket.socket] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Start the process. Call from the main thread: the kernel takes the end of the calling thread for ours."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        death_signal = self.stop_signal if self.dies_with_parent else None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_privileges(death_signal, unprivileged=self.unprivileged), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
                pass_fds=[kept.fileno() for kept in self.keeps],
            )

    def _environment(self) -> dict[str, str]:
        inherited = of_a_program_of_ours(os.environ) if self.ours else for_other_servers(os.environ)
        return {**inherited, **_AS_IN_EVERY_SHELL, **self.environment}

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.poll()

    def wait_ready(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready` says so.

        Raises:
            RuntimeError: the process ended or was not ready in time; ends with the last lines of its log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            code = self.exit_code()
            if code is not None or time.monotonic() > deadline:
                what = f"ended with exit code {code}" if code is not None else f"did not answer within {seconds:g} s"
                self.stop()
                raise RuntimeError(f"{self.name} {what}; {self.log} ends with:\n{log_tail(self.log)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop signal, a grace, then KILL for whatever is left of its session. Does nothing twice."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.grace_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def run_to_end(command: Sequence[str], *, unprivileged: bool, what: str) -> None:
    """Run a short command.

    Raises:
        RuntimeError: it failed; ends with what it wrote.
    """
    done = subprocess.run(
        [*_privileges(signal.SIGKILL, unprivileged=unprivileged), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**for_other_servers(os.environ), **_AS_IN_EVERY_SHELL},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{what} failed with exit code {done.returncode}:\n{done.stdout.decode(errors='replace')}")


def require_reachable(program: Path) -> None:
    """Refuse a program that an `unprivileged` child could not start.

    Raises:
        RuntimeError: it lies below a folder that is closed to that child; says the ways out.
    """
    done = subprocess.run([*_privileges(None, unprivileged=True), "test", "-x", str(program)], check=False)
    if done.returncode:
        raise RuntimeError(
            f"{UNPRIVILEGED}, as which PostgreSQL runs because it refuses root, cannot reach {program}: a folder above"
            " it is closed to others, and this system does not let root pass on the right to enter it (CAP_SETPCAP,"
            " CAP_DAC_OVERRIDE); start as an ordinary user, or install where others may enter"
        )


def belong_to(directory: Path) -> None:
    """Mark this process, and all that it starts from now on, as the stack of `directory`.

    Raises:
        ValueError: a limit of this process keeps it from that.
    """
    if not marks.can_mark(STACK):
        raise ValueError(
            "the limit of real-time scheduling is set for this process, and `barlow up` marks its processes in its "
            "place: start it where `ulimit -R` is unlimited"
        )
    marks.mark(0, STACK, Mark(marks.name_of(str(directory.resolve()))))


def belonging_to(directory: Path) -> list[psutil.Process]:
    """The processes of ours, and for root those of everybody, that carry the mark of the stack of `directory`."""
    name = marks.name_of(str(directory.resolve()))
    return [process for process, mark in marks.find_marked(STACK).marked if mark.name == name]


def end_leftovers(directory: Path, report: Callable[[str], None], *, grace_seconds: float) -> int:
    """End every other process that carries the mark of `directory`: what a killed `barlow up` left.

    What does not end is reported with its process id.

    Returns:
        How many were found.
    """
    ours = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found = [process for process in belonging_to(directory) if process.pid not in ours]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=grace_seconds)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _, left = psutil.wait_procs(alive, timeout=END_SECONDS)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        report(f"processes of {directory} do not end and may hold its files and ports: {pids}")
    return len(found)


def log_tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log; empty if there is none."""
    try:
        return "\n".join(path.read_text("utf-8", "replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def unprivileged_owner() -> tuple[int, int] | None:
    """User and group id that own the files of an `unprivileged` child; None when we are no root ourselves."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED)
    return entry.pw_uid, entry.pw_gid


def _privileges(death_signal: signal.Signals | None, *, unprivileged: bool) -> list[str]:
    setpriv = shutil.which("setpriv")
    owner = unprivileged_owner() if unprivileged else None
    if setpriv is None:
        if owner is not None:
            raise RuntimeError(
                "PostgreSQL does not run as root and `setpriv` (util-linux) is missing; use another user"
            )
        return []  # orphans are then ended by the next start only
    prefix = [setpriv]
    if death_signal is not None:
        prefix += ["--pdeathsig", death_signal.name.removeprefix("SIG")]
    if owner is not None:
        ids = [f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups"]
        prefix += [*ids, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        if _can_set_securebits():
            # It has access(2) respect the capability: PostgreSQL looks for its own programs by access(2).
            prefix.append(_ACCESS_HEEDS_CAPABILITIES)
    return [*prefix, "--"]


@functools.cache
def _can_set_securebits() -> bool:
    """Some containers' root may not; then only folders that are open to everybody serve."""
    done = subprocess.run(["setpriv", _ACCESS_HEEDS_CAPABILITIES, "--", "true"], stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0
