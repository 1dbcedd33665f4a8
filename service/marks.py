"""Marks that the kernel keeps on a process and on all that comes from it.

A mark is a pair of numbers in the place of a resource limit that nobody needs. Fork and exec hand it on; a
session of its own, an emptied environment, closed descriptors, another parent or a hidden memory (PR_SET_DUMPABLE)
leave it as it is; without privileges nobody can take it off again. Everybody may read it of every process. So what
carries no mark comes from nobody who was given it, and a process that cannot be looked at is *unknown*, never absent.

Everybody may also copy it onto processes of their own. So a mark says something only on a process that this account may
send a signal to; ranks give up the right to become another account (barlow_lab.kernel.give_up_privileges).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_HARD_FROM = 1 << 62
"""Marks are numbers that nobody means as a limit: soft ones from 2^61 on, hard ones from 2^62 on."""
SOFT_BITS = 61


@dataclass(frozen=True, slots=True)
class ResourceLimit:
    """A limit that ends nothing at the height of a mark, as Linux numbers it and as /proc/PID/limits calls it."""

    number: int
    title: str


ATTEMPT = ResourceLimit(10, "Max file locks")
"""RLIMIT_LOCKS, without effect since Linux 2.4.25. Which attempt of which worker a process belongs to."""
STACK = ResourceLimit(15, "Max realtime timeout")
"""RLIMIT_RTTIME, in microseconds, of real-time scheduling alone. Which `barlow up` a process belongs to."""


@dataclass(frozen=True, slots=True)
class Mark:
    """`name`: 62 bits of whose it is; `detail`: 61 bits that are the marker's own."""

    name: int
    detail: int = 0

    @property
    def limits(self) -> tuple[int, int]:
        """Soft and hard limit."""
        return (1 << SOFT_BITS) + self.detail, _HARD_FROM + self.name


@dataclass(frozen=True, slots=True)
class MarkedProcesses:
    """What runs on this host: the processes with a mark that we may end, and those of which nobody knows."""

    marked: list[tuple[psutil.Process, Mark]]
    unknown: list[int]


def name_of(text: str) -> int:
    """The 62 bits for a name."""
    return hash_bits(text, 62)


def hash_bits(text: str, bits: int) -> int:
    """The first bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") >> (256 - bits)


def can_mark(limit: ResourceLimit) -> bool:
    """Whether this process may mark others: a limit that was set below the marks can only be raised by root."""
    with contextlib.suppress(OSError, ValueError):
        if resource.getrlimit(limit.number)[1] != resource.RLIM_INFINITY:
            resource.setrlimit(limit.number, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return True
    return False


def mark(pid: int, limit: ResourceLimit, value: Mark) -> None:
    """Mark a process of ours, 0 for this one. What it has started before is not marked.

    Raises:
        ProcessLookupError: it is gone.
        OSError, ValueError: its limit was set lower, see `can_mark`.
    """
    resource.prlimit(pid, limit.number, value.limits)


def find_marked(limit: ResourceLimit) -> MarkedProcesses:
    """Every process with a mark at this limit that we may send a signal to, and those that cannot be asked."""
    marked, unknown, foreign_closed = [], [], not sees_hidden()
    for pid in _pids():
        try:
            process = psutil.Process(pid)
            value = _read(pid, limit)
            if value is not None and _may_signal(process) and not _is_over(pid):
                marked.append((process, value))
        except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
            continue  # gone
        except (OSError, psutil.AccessDenied):
            # hidepid closes what other accounts run; of us they are not, see barlow_lab.kernel.give_up_privileges.
            if not foreign_closed:
                unknown.append(pid)
    return MarkedProcesses(marked, unknown)


def sees_hidden() -> bool:
    """Whether a process of our account that hides its memory would be listed: not where /proc is mounted with hidepid,
    unless we are root or of the group that the mount names."""
    if os.geteuid() == 0:
        return True
    for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
        _, folder, _, options, *_ = line.split(" ")
        if folder == "/proc":
            said = dict(option.partition("=")[::2] for option in options.split(","))
            if said.get("hidepid", "0") not in ("0", "off") and int(said.get("gid", -1)) not in os.getgroups():
                return False
    return True


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _read(pid: int, limit: ResourceLimit) -> Mark | None:
    """The mark of a process, None if it has none.

    Raises:
        OSError: it cannot be asked; FileNotFoundError, ProcessLookupError: it is gone.
    """
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith(limit.title):
            soft, hard = line.removeprefix(limit.title).split()[:2]
            if "unlimited" in (soft, hard) or int(hard) < _HARD_FROM or int(soft) >> SOFT_BITS != 1:
                return None
            return Mark(int(hard) - _HARD_FROM, int(soft) - (1 << SOFT_BITS))
    # An empty file is that of a process which ended meanwhile.
    raise ProcessLookupError(pid)


def _may_signal(process: psutil.Process) -> bool:
    """What kill(2) asks: whether the real or the saved account of a process is ours, real or effective; root may all.

    Not asked by a signal 0: a security module that refuses it would have ranks of ours count as gone.
    """
    ours = {os.getuid(), os.geteuid()}
    uids = process.uids()
    return os.geteuid() == 0 or not ours.isdisjoint((uids.real, uids.saved))


def _is_over(pid: int) -> bool:
    """Whether a process is a zombie, of which no thread runs on."""
    # The name may hold any bytes, blanks and brackets among them; what follows it does not.
    state, *rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return state in (b"Z", b"X") and int(rest[16]) <= 1
