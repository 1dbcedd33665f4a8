"""The tokens of `barlow login`, each by the address it is for, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import httpx

from barlow_lab import private_folders
from barlow_lab.given_files import RefusedFile, open_regular, parse_json, read_at_most
from service.addresses import refuse_secret
from service.client.connection import ApiError, Unreachable
from service.loopback import is_loopback

VARIABLE = "BARLOW_TOKEN"
"""A token in the environment wins over a stored one."""
_FOLDER = "XDG_CONFIG_HOME"
MAX_BYTES = 1 << 20
"""Most bytes of the file of tokens, each of which has some hundred."""


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
    """Where the tokens are.

    Raises:
        ApiError: no variable says where, and this account has no home.
    """
    configured = os.environ.get(_FOLDER, "")
    # The XDG specification: a relative path is invalid and to be ignored.
    try:
        folder = Path(configured) if os.path.isabs(configured) else Path.home() / ".config"
    except RuntimeError:
        raise ApiError(f"this account has no home to keep tokens in; set {_FOLDER} to a folder of yours") from None
    return folder / "barlow" / "tokens.json"


def _unusable(path: Path, error: OSError) -> ApiError:
    named = _FOLDER if os.path.isabs(os.environ.get(_FOLDER, "")) else "HOME"
    return ApiError(
        f"{path}, where tokens are kept, cannot be used: {error.strerror or error}. {named} says where it is: set "
        f"{_FOLDER} to a folder that is yours"
    )


def canonical(url: str) -> str:
    """One spelling of an address: host in lower case, no default port, no slash at the end.

    Raises:
        Unreachable: it is none, or holds a password.
    """
    try:
        refuse_secret(url)
    except ValueError as error:
        raise Unreachable(
            f"the address of the API (--url or BARLOW_URL) is no good: {error}. A token is kept by `barlow login`, or "
            f"stands in {VARIABLE}"
        ) from None
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise Unreachable(
            "what stands in --url or BARLOW_URL is not the address of an API: write https://HOST:PORT"
        ) from None
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
    except RefusedFile:
        raise
    except OSError as error:
        raise _unusable(path, error) from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(token, str) for token in found.values()):
        raise ApiError(f"{path} does not hold the tokens of `barlow login`; remove it and log in again")
    return found


def _save(tokens: dict[str, str]) -> None:
    write_private(file(), json.dumps(tokens, indent=2))


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner can read, by rename.

    Raises:
        ApiError: it cannot be written; names the variable that says where it is.
    """
    # Written beside it and renamed: never half a file, and never one with a wider mode.
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        private_folders.make(path.parent)
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(content)
        part.rename(path)
    except OSError as error:
        raise _unusable(path, error) from None
