"""Where the API is: as it was told, or as `barlow up` wrote it down; and the token that is for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import httpx

from barlow_lab.commands import missing_folder
from barlow_lab.given_files import open_regular, parse_json, read_at_most
from service.client import own_stack, token_store
from service.client.api import Client
from service.client.connection import Unreachable
from service.loopback import leads_here

DATA = Path(".barlow")
_FILE = "endpoints.json"
_STATE = "local.json"
_HERE = "127.0.0.1"
MAX_BYTES = 1 << 16
"""Most bytes read of a file of the folder, which may be anybody's."""


@dataclass(frozen=True, slots=True)
class _Written:
    """The file of addresses as it was read once. `ours`: this account has written it."""

    api: str
    ours: bool


def connect(url: str | None, data: Path) -> Client:
    """A client of the API at `url`, or else of the stack whose `barlow up` runs on the directory `data`.

    Its token is, whichever there is first: BARLOW_TOKEN, that of `barlow login`, that of the stack on `data`. Where the
    address has the port of this account's stack on `data`, and its connection leads to this machine, none goes to
    another account, also while the stack is away; nor does one where another account's file says the address.

    Raises:
        Unreachable: there is no address, or it holds a password.
        ApiError: others can read a stored token.
    """
    written: _Written | None
    if url:
        found, written = url, _written_if_any(data / _FILE)
    else:
        written = _written(data / _FILE)
        found = written.api
    token_store.canonical(found)
    own = written is not None and _is_own_stack(found, written)
    # A token that is kept for an address is none for the account whose file chooses that address.
    chosen_by_another = not url and written is not None and not written.ours
    same_account = chosen_by_another or _has_its_port(found, written, data)
    given = token_store.token_for(found, named=bool(url), ours=written is not None and written.ours)
    if given is not None:
        in_environment = given == os.environ.get(token_store.VARIABLE)
        source = token_store.VARIABLE if in_environment else "`barlow login`, which `barlow logout` removes"
        return Client(
            found, given, same_account=same_account, remedy=f"that was the token of {source}; {_login(found)}"
        )
    kept = own_stack.read(data) if own else None
    if kept is None:
        return Client(found, same_account=same_account, remedy=_login(found) + _or_from_its_folder(found))
    said = f"that was the token in {data / own_stack.FILE}, and its stack runs with another one, BARLOW_ADMIN_TOKEN"
    return Client(found, kept, same_account=True, remedy=f"{said}; {_login(found)}")


def address(url: str | None, data: Path) -> str:
    """`url`, or else the address of the stack whose `barlow up` runs on the directory `data`.

    Raises:
        Unreachable: there is none, or it holds a password.
    """
    found = url or _written(data / _FILE).api
    token_store.canonical(found)
    return found


def has_port_of_own_stack(url: str, data: Path) -> bool:
    """Whether an address has the port of the API of this account's stack on `data`, so that no secret goes there to
    another account."""
    return _has_its_port(url, _written_if_any(data / _FILE), data)


def _is_own_stack(found: str, written: _Written) -> bool:
    """Whether `found` is what this account's own `barlow up` has written."""
    # Neither the address nor the token of somebody else's folder means anything to us.
    if not written.ours:
        return False
    try:
        its = token_store.canonical(written.api)
    except Unreachable:
        return False
    stack, asked = httpx.URL(its), httpx.URL(token_store.canonical(found))
    # In whatever way it is spelled: it leads to the same port of this machine, which may be another account's by now.
    same = (asked.scheme, asked.port) == (stack.scheme, stack.port) and leads_here(asked.host)
    return same and (stack.scheme, stack.host) == ("http", _HERE)


def _has_its_port(found: str, written: _Written | None, data: Path) -> bool:
    """Whether or not the stack runs, and whatever host it names: a name may lead here, which the connection tells."""
    asked = httpx.URL(token_store.canonical(found))
    return asked.scheme == "http" and (asked.port or 80) in (_written_port(written), _kept_port(data / _STATE))


def _written_port(written: _Written | None) -> int | None:
    try:
        return httpx.URL(written.api).port or 80 if written is not None and written.ours else None
    except httpx.InvalidURL:
        return None


def _kept_port(file: Path) -> int | None:
    """The port that a stack of ours keeps for its API from one start to the next."""
    try:
        with open_regular(file, link=False) as opened:
            if os.fstat(opened.fileno()).st_uid != os.geteuid():
                return None
            port = parse_json(read_at_most(opened, MAX_BYTES, file).decode("utf-8"))["ports"]["api"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return port if isinstance(port, int) else None


def _login(url: str) -> str:
    return f"run `barlow login --url {url}`"


def _or_from_its_folder(url: str) -> str:
    if httpx.URL(token_store.canonical(url)).host not in (_HERE, "localhost"):
        return ""
    return ". For the stack of a `barlow up` of yours, name its directory with --data DIR: its token is found there"


def _written_if_any(file: Path) -> _Written | None:
    try:
        return _written(file)
    except (Unreachable, OSError):
        return None


def _written(file: Path) -> _Written:
    try:
        # Whose it is, is asked of what is read: a name may lead elsewhere a moment later.
        with open_regular(file, link=False) as opened:
            ours = os.fstat(opened.fileno()).st_uid == os.geteuid()
            raw = read_at_most(opened, MAX_BYTES, file)
        return _Written(str(parse_json(raw.decode("utf-8"))["api"]), ours)
    except FileNotFoundError:
        if not file.is_absolute() and (word := missing_folder()):
            raise Unreachable(word) from None
        raise Unreachable(
            f"no API address: there is no {file}. Start a stack here with `barlow up`, name its directory with "
            "--data DIR, or give an address by --url or BARLOW_URL"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"{file} is not the addresses of a stack ({error!r}); start `barlow up` again") from None
