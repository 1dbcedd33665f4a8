"""The admin token that `barlow up` keeps in its folder: made once, read by the account that made it and nobody else."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from service.api.token_secrets import new_secret
from service.client.connection import ApiError
from service.settings import SHORTEST_TOKEN

FILE = "admin-token"
"""Its name in the folder of the stack."""

_FORM = re.compile(rf"[\x21-\x7e]{{{SHORTEST_TOKEN},}}")


def make(folder: Path) -> str:
    """The token of the stack in `folder`, made if there is none yet.

    Raises:
        ApiError: as for `read`.
        OSError: the folder cannot be written.
    """
    found = read(folder)
    if found is not None:
        return found
    token = new_secret()
    part = folder / f"{FILE}.part"
    part.unlink(missing_ok=True)
    # Written beside it and renamed: never half a file, and never one with a wider mode.
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as opened:
        opened.write(f"{token}\n")
    part.rename(folder / FILE)
    return token


def read(folder: Path) -> str | None:
    """The token of the stack in `folder`; None where there is none.

    Raises:
        ApiError: others can read the file, it is somebody else's, or it holds something else.
    """
    path = folder / FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise ApiError(f"{path} belongs to another account; ask an admin for a token, and `barlow login`") from None
    except OSError as error:
        raise ApiError(f"{path} is no plain file ({error.strerror}); remove it: {_AGAIN}") from None
    try:
        facts = os.fstat(descriptor)
        mode = stat.S_IMODE(facts.st_mode)
        if not stat.S_ISREG(facts.st_mode):
            raise ApiError(f"{path} is no plain file; remove it: {_AGAIN}")
        if facts.st_uid != os.geteuid():
            raise ApiError(
                f"{path} belongs to another account (user id {facts.st_uid}) and is not used; ask an admin for a "
                "token, and `barlow login`"
            )
        if mode & 0o077:
            raise ApiError(
                f"{path} is an admin's token and others can read it (mode {mode:o}). Whoever has read it is an admin: "
                f"remove it, and {_AGAIN}; or `chmod 600 {path}` if nobody has"
            )
        token = os.read(descriptor, 1000).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    if not _FORM.fullmatch(token):
        raise ApiError(f"{path} does not hold a token; remove it: {_AGAIN}")
    return token


_AGAIN = "the next `barlow up` makes a new one"
