"""The image files below a folder, and what of it is passed over.

Links to folders are passed over, so that no loop is walked. What begins with a dot is hidden and no image. Names are
bytes: neither the locale nor the encoding of the disk changes the order.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from trainer.data.formats.leftovers import is_leftover
from trainer.data.formats.passed_over import ENDINGS, OTHER_IMAGES, PassedOver
from trainer.data.formats.system_names import system_name
from trainer.data.image_files import identity


def images_below(
    folder: bytes, tick: Callable[[], None], passed: PassedOver, *, start: bytes = b"", links_at_top: bool = False
) -> list[tuple[bytes, int, int]]:
    """(path, size in bytes, identity of the file) of each image below `folder`/`start`, in no order.

    `tick` is called for every file.

    Paths are below `start`, those that are passed over below `folder`. `links_at_top` follows links to folders that
    stand in `folder` itself and lead out of it, each folder once.

    Raises:
        OSError: a folder cannot be read.
    """
    images: list[tuple[bytes, int, int]] = []
    waiting = [start]
    prefix = len(os.path.join(start, b""))
    while waiting:
        below = waiting.pop()
        links: list[bytes] = []
        for name, entry in entries(folder, below, passed, tick):
            tick()
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            elif is_folder(entry):
                links.append(name)
            elif is_leftover(entry.name):
                passed.leftovers.add(name)
            elif entry_ending(entry) not in ENDINGS:
                passed.file(entry_ending(entry))
            elif (status := _status(entry, passed)) is not None:
                images.append((name[prefix:], status.st_size, identity(status)))
        if links_at_top and not below:
            followed = _leading_out(folder, links)
            waiting += followed
            links = [name for name in links if name not in followed]
        for name in links:
            passed.links.add(name)
    return images


def entries(
    folder: bytes, below: bytes, passed: PassedOver, tick: Callable[[], None], *, hidden: bool = False
) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    """What stands in `folder`/`below`, with its path below `folder`; without what is a system's or, unless `hidden`,
    hidden: that is counted in `passed`, and `tick` is called for every file of hidden folders."""
    with os.scandir(os.path.join(folder, below)) as there:
        for entry in there:
            name = os.path.join(below, entry.name)
            if kind := system_name(entry.name):
                passed.system[kind] += 1
            elif hidden or not entry.name.startswith(b"."):
                yield name, entry
            elif entry.is_dir(follow_symlinks=False):
                _count_hidden(folder, name, passed, tick)
            else:
                _count_hidden_file(entry, name, passed)


def is_folder(entry: os.DirEntry[bytes]) -> bool:
    """Whether it is a folder or leads to one; a link that leads nowhere, or where nobody may look, does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def entry_ending(entry: os.DirEntry[bytes]) -> bytes:
    """`ending_of` its name."""
    return ending_of(entry.name)


def ending_of(name: bytes) -> bytes:
    """What stands behind the last dot, in small letters."""
    return os.path.splitext(name)[1][1:].lower()


def _status(entry: os.DirEntry[bytes], passed: PassedOver) -> os.stat_result | None:
    try:
        status = entry.stat()
    except OSError:
        passed.others["dead link"] += 1
        return None
    if not stat.S_ISREG(status.st_mode):
        passed.others["no regular file"] += 1
        return None
    return status


def _leading_out(folder: bytes, links: list[bytes]) -> list[bytes]:
    """Those of the links that lead to a folder that is neither in `folder` nor around it, nor another one's."""
    taken = [os.path.realpath(folder)]
    followed = []
    for name in sorted(links):
        real = os.path.realpath(os.path.join(folder, name))
        if not any(_holds(real, other) or _holds(other, real) for other in taken):
            taken.append(real)
            followed.append(name)
    return followed


def _holds(folder: bytes, path: bytes) -> bool:
    return os.path.commonpath([folder, path]) == folder


def _count_hidden_file(entry: os.DirEntry[bytes], name: bytes, passed: PassedOver) -> None:
    if entry_ending(entry) in ENDINGS or entry_ending(entry) in OTHER_IMAGES:
        passed.hidden.add(name)
    elif is_leftover(entry.name):
        passed.leftovers.add(name)


def _count_hidden(folder: bytes, hidden: bytes, passed: PassedOver, tick: Callable[[], None]) -> None:
    waiting = [hidden]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(folder, below)) as there:
                for entry in there:
                    if not passed.may_look_at_hidden():
                        return
                    tick()
                    name = os.path.join(below, entry.name)
                    if kind := system_name(entry.name):
                        passed.system[kind] += 1
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    else:
                        _count_hidden_file(entry, name, passed)
        except OSError:
            passed.closed.add(below)
