"""Addresses with a password in them, as users write them into settings: read one way, or refused without showing it."""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_to_bytes

ENCODE = "python3 -c \"import getpass, urllib.parse as u; print(u.quote(getpass.getpass(), safe=''))\""
"""The command that asks for a password and prints it percent-encoded."""

_SHOWN = 100
"""Characters of what is no address, at most."""
_HOST = r"(?:\[[0-9A-Za-z:.%]*\]|[^\s\[\]:@,]*)(?::[0-9]+)?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")


def check_address(url: str, schemes: tuple[str, ...]) -> None:
    """Refuse an address that is of no such scheme, or that could be read in two ways.

    A raw @, /, ? or # in a password ends it early for one parser and not for the next, and the rest of it would be
    taken for a host, and shown as one.

    Raises:
        ValueError: holds no part of the address, and the remedy.
    """
    scheme, there, rest = url.partition("://")
    if not there or scheme not in schemes:
        raise ValueError(f"it must begin with {' or '.join(f'{name}://' for name in schemes)}")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    user, _, hosts = authority.rpartition("@")
    query = rest.partition("?")[2]
    clear = (
        # An @ behind the authority ends a password that holds a / or a ?.
        rest.count("@") <= 1
        and "@" not in rest[len(authority) :]
        and "#" not in rest
        and not re.search(r"[\s\x00-\x1f\x7f\[\]]|%(?![0-9A-Fa-f]{2})", user)
        and _is_text(unquote_to_bytes(rest))
        # The queue's library takes a ; for the end of one address and the beginning of the next.
        and not (scheme.startswith("redis") and ";" in rest)
        and _HOSTS.fullmatch(hosts)
        and all(re.match(r"\w+=", item) for item in query.split("&") if item)
    )
    if not clear:
        raise ValueError(
            "it cannot be read: a character of its user name or password means something else in an address, or its "
            "host or port is none. Write them percent-encoded (@ is %40, / is %2F, ? is %3F, # is %23, % is %25, ; is "
            f"%3B, [ is %5B, ] is %5D, a blank is %20); this asks for a password and prints it so: {ENCODE}"
        )


def refuse_secret(url: str) -> None:
    """Refuse an HTTP address that people are shown, if more stands in it than where a server is.

    A password whose @ is written another way stands where a port would, and errors about ports show it.

    Raises:
        ValueError: holds no part of the address, and the remedy.
    """
    authority = re.split("[/\\\\]", url.rpartition("://")[2], maxsplit=1)[0]
    if re.search(r"[@\uFE6B\uFF20?#\s]", url) or "%40" in authority or not re.fullmatch(_HOST, authority):
        raise ValueError(
            "it is shown to people, and is to have no user name, password, query or blank in it: https://HOST:PORT, or "
            "https://HOST:PORT/PATH"
        )


def shown_part(part: str, whole: str) -> str:
    """Part of what a setting holds, for an error about it: nothing that drives a terminal, and nothing of what may hold
    a password."""
    if re.search(r"[@\uFE6B\uFF20]|%40", whole):
        return "what it holds, with an @ in it and so not shown here,"
    return ascii(part if len(part) <= _SHOWN else part[:_SHOWN] + "...")


def without_user(url: str) -> tuple[str, str | None, str | None]:
    """An HTTP address that check_address takes without its user name and password, and these two in clear."""
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    user, there, _ = authority.rpartition("@")
    if not there:
        return url, None, None
    name, _, password = user.partition(":")
    return f"{scheme}://{rest[len(user) + 1 :]}", unquote(name), unquote(password)


def _is_text(decoded: bytes) -> bool:
    """Whether every library makes the same of it: UTF-8 without a zero."""
    try:
        return "\0" not in decoded.decode()
    except UnicodeDecodeError:
        return False
