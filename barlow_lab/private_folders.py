"""Folders of this account alone, and whether another account could put something else in the place of one."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

_CLOSED = 0o700
_EVERY_ACCOUNT = (1 << 32) - 1
"""So many numbers of accounts there are outside of any user namespace: user_namespaces(7)."""
_ACL = "system.posix_acl_access"
_ACL_ENTRY = struct.Struct("<HHI")
"""Tag, rights and number of an entry, as acl(5) tells of them and linux/posix_acl_xattr.h lays them out."""
_ACL_USER, _ACL_GROUP, _ACL_WRITE = 0x02, 0x08, 0x02
_MOST_LINKS = 40
"""As many as the kernel follows."""


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
    return next((above for above, facts in _way_to(folder) if _others_write(above, facts)), None)


def of_another(folder: Path) -> Path | None:
    """The nearest folder or link on the way to `folder` that belongs to an account other than this one and root.

    In a folder like /tmp another account may exchange a link of its own, wherever that leads now. Root trusts itself
    alone: the owner of a home can exchange what root keeps there.

    Raises:
        OSError: the way there cannot be looked at.
    """
    trusted = {0, os.geteuid(), *_nameless()}
    return next((above for above, facts in _way_to(folder) if facts.st_uid not in trusted), None)


def _way_to(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The folders and links that are passed, the nearest first."""
    passed = dict.fromkeys(_passed(folder))
    return [(above, above.lstat()) for above in reversed(passed)]


def _passed(folder: Path) -> Iterator[Path]:
    at, left, links = Path("/"), list(reversed(folder.absolute().parts[1:])), 0
    while left:
        name = left.pop()
        yield at
        if name == "..":
            at = at.parent
        elif (at / name).is_symlink():
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
            yield at / name
            target = (at / name).readlink()
            left.extend(reversed(target.parts[target.is_absolute() :]))
            at = Path("/") if target.is_absolute() else at
        else:
            at = at / name


def _nameless() -> set[int]:
    """The number that a user namespace shows for accounts which have none in it; / and /home are root's by it."""
    ranges = Path("/proc/self/uid_map").read_text().splitlines()
    if sum(int(line.split()[2]) for line in ranges) >= _EVERY_ACCOUNT:
        return set()
    return {int(Path("/proc/sys/kernel/overflowuid").read_text())}


def _others_write(above: Path, facts: os.stat_result) -> bool:
    if facts.st_mode & stat.S_ISVTX or stat.S_ISLNK(facts.st_mode):
        return False
    by_group = facts.st_mode & stat.S_IWGRP and (not _is_private(facts.st_gid) or _acl_lets_others_write(above))
    return bool(facts.st_mode & stat.S_IWOTH or by_group)


def _acl_lets_others_write(above: Path) -> bool:
    """Whether an access control list names an account or a group that may write, if the bits of the group, which are
    its mask then, let it."""
    try:
        entries = _ACL_ENTRY.iter_unpack(os.getxattr(above, _ACL)[4:])
    except OSError:  # there is none, or the file system has none
        return False
    return any(
        rights & _ACL_WRITE and (tag == _ACL_GROUP or (tag == _ACL_USER and number != os.geteuid()))
        for tag, rights, number in entries
    )


def _is_private(group_id: int) -> bool:
    """Whether a group is this account's own, by the custom of Linux: its first, of its name, without other members."""
    try:
        group, account = grp.getgrgid(group_id), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return (group_id, group.gr_name) == (account.pw_gid, account.pw_name) and not {*group.gr_mem} - {account.pw_name}
