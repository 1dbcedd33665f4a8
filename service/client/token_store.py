"""The tokens of `barlow login`, each by the address it is for, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import httpx

from barlow_lab import private_folders
from barlow_lab.given_files import open_regular, parse_json, read_at_most
from service.client.api import ApiError, Unreachable
from service.loopback import is_loopback

VARIABLE = "BARLOW_TOKEN"
"""A token in the environment wins over a stored one."""
MAX_BYTES = 1 << 20
"""Of the file of tokens, each of which has some hundred."""


def token_for(url: str, *, named: bool = True, ours: bool = True) -> str | None:
    """The token for this address: that of the environment, or the stored one.

    Args:
        url: the address.
        named: whether the user named it. Else it was found in a file: the environment's token, of which nobody knows
            for what address it is, then goes to this machine only.
        ours: whether that file is this account's. Else it goes nowhere: any account can listen on this machine.

    Raises:
        ApiError: others can read the file, or it holds something else.
    """
    here = ours and is_loopback(httpx.URL(canonical(url)).host)
    given = os.environ.get(VARIABLE) if named or here else None
    return given or _load().get(canonical(url))


def store(url: str, token: str) -> Path:
    """Keep a token for this address; returns the file.

    Raises:
        ApiError: as for `token_for`.
    """
    _save({**_load(), canonical(url): token})
    return file()


def forget(url: str) -> bool:
    """Remove the token for this address; whether there was one.

    Raises:
        ApiError: as for `token_for`.
    """
    kept = _load()
    if kept.pop(canonical(url), None) is None:
        return False
    _save(kept)
    return True


def file() -> Path:
    """Where the tokens are."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    folder = Path(configured) if os.path.isabs(configured) else Path.home() / ".config"
    return folder / "barlow" / "tokens.json"


def canonical(url: str) -> str:
    """One spelling of an address: host in lower case, no default port, no slash at the end.

    Raises:
        Unreachable: it is none.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Unreachable(f"{url!r} is not the address of an API: {error}") from None
    return f"{parsed.scheme}://{parsed.netloc.decode()}{parsed.path}".rstrip("/")


def _load() -> dict[str, str]:
    path = file()
    try:
        with open_regular(path) as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            if mode & 0o077:
                raise ApiError(
                    f"{path} holds access tokens and others can read it (mode {mode:o}): run `chmod 600 {path}`; if "
                    "somebody may have read it, have its tokens revoked"
                )
            found = parse_json(read_at_most(opened, MAX_BYTES, path).decode("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(token, str) for token in found.values()):
        raise ApiError(f"{path} does not hold the tokens of `barlow login`; remove it and log in again")
    return found


def _save(tokens: dict[str, str]) -> None:
    write_private(file(), json.dumps(tokens, indent=2))


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner can read, by rename."""
    private_folders.make(path.parent)
    # Beside and renamed: never half a file, and never one with a wider mode.
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(content)
    part.rename(path)
