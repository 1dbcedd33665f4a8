"""How the commands that people run begin and end, in whatever folder and with whatever streams they are started."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from barlow_lab.standard_streams import ready_streams

_OWNER, _EVERYBODY = 0o700, 0o777
_NOT_TAKEN = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


def run_command(name: str, main: Callable[[], int | None], *, needs_folder: bool = False) -> NoReturn:
    """Run `main` with streams that are there, and end this process with the status that it returns.

    It is 1 where the output was not taken: with a line that says why (a full disk), without a word where its reader has
    left. And where the command `needs` the folder that it is started in and that is gone.
    """
    ready_streams()
    keep_own_rights()
    if needs_folder and (word := missing_folder()):
        sys.exit(f"{name}: {word}")
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if not is_of_output(error):
            raise
        with contextlib.suppress(OSError):
            if error.errno != errno.EPIPE:
                print(f"{name}: write error: {error.strerror}", file=sys.stderr)
        status = 1
    finally:
        _give_up_what_is_left()
    sys.exit(status)


def keep_own_rights() -> None:
    """Take from this process' umask what it takes from the owner: a program that cannot read what it has written, or
    enter what it has made, ends in the middle of its work. Others get no more by it."""
    os.umask(os.umask(_EVERYBODY) & ~_OWNER)


def _give_up_what_is_left() -> None:
    """The interpreter writes out what is left of the streams, and makes a status of its own of it where that fails."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def is_of_output(error: OSError) -> bool:
    """Whether nothing more can be written, and no file is named: to a stream, as far as an error tells."""
    return error.errno in _NOT_TAKEN and error.filename is None


def missing_folder() -> str | None:
    """What to say where the folder that this process was started in has been removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the folder that it is started in is not there any more; cd to one that is"
    return None
