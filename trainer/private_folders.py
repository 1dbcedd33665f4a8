"""Folders of this account alone, and whether another account could put something else in the place of one."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

_CLOSED = 0o700
_EVERY_ACCOUNT = (1 << 32) - 1
"""So many numbers of accounts there are outside of any user namespace: user_namespaces(7)."""


def make(folder: Path) -> None:
    """Make a folder that is not there, and those above it, closed to others whatever the umask says.

    Raises:
        OSError: it cannot be made.
    """
    missing = []
    for above in folder.parents:
        if above.exists():
            break
        missing.append(above)
    for one in (*reversed(missing), folder):
        one.mkdir(mode=_CLOSED, exist_ok=True)


def open_above(folder: Path) -> Path | None:
    """The nearest folder on the way to `folder` in which others may rename what leads there; None: there is none.

    In a folder like /tmp (sticky) nobody renames what is another's, and the private group of an account, which a
    umask of 002 lets write, is nobody else.

    Raises:
        OSError: the way there cannot be looked at.
    """
    return next((above for above in _way_to(folder) if _others_write(above.stat())), None)


def of_another(folder: Path) -> Path | None:
    """The nearest folder on the way to `folder` that belongs to an account other than this one and root.

    Root trusts itself alone: the owner of a home can exchange what root keeps there.

    Raises:
        OSError: the way there cannot be looked at.
    """
    trusted = {0, os.geteuid(), *_nameless()}
    return next((above for above in _way_to(folder) if above.stat().st_uid not in trusted), None)


def _way_to(folder: Path) -> list[Path]:
    # By its name and by where that leads: a link can be exchanged like a folder.
    return list(dict.fromkeys((*folder.absolute().parents, *folder.resolve().parents)))


def _nameless() -> set[int]:
    """In a user namespace the number that it shows for accounts which have none there; / and /home are root's by it."""
    ranges = Path("/proc/self/uid_map").read_text().splitlines()
    if sum(int(line.split()[2]) for line in ranges) >= _EVERY_ACCOUNT:
        return set()
    return {int(Path("/proc/sys/kernel/overflowuid").read_text())}


def _others_write(facts: os.stat_result) -> bool:
    if facts.st_mode & stat.S_ISVTX:
        return False
    by_group = facts.st_mode & stat.S_IWGRP and not _is_private(facts.st_gid)
    return bool(facts.st_mode & stat.S_IWOTH or by_group)


def _is_private(group_id: int) -> bool:
    """Whether a group is this account's own, by the custom of Linux: its first, of its name, without other members."""
    try:
        group, account = grp.getgrgid(group_id), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return (group_id, group.gr_name) == (account.pw_gid, account.pw_name) and not {*group.gr_mem} - {account.pw_name}
