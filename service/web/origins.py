"""To which names a server answers, and which pages may write to it.

A page of another site can have its own name resolve to this machine, and then its scripts read whatever the server
says (DNS rebinding); the header Host still tells the name. And it can send a form here, which its reader's browser
adds cookies to; the header Origin, which no script can change, tells whose page it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from service.loopback import is_loopback

HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing. Everything else is a write, with a body or without."""
MISDIRECTED = 421
FORBIDDEN = 403

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered: an HTTP status, and words for whoever sent it. They name the setting to change."""

    status: int
    words: str


@dataclass(frozen=True, slots=True)
class Names:
    """The names and the pages that one server trusts.

    `hosts_setting` and `url_setting` are named in refusals. `hosts` hold no port: a tunnel may end at any. `own` are
    the server's addresses as browsers reach it, `others` the pages of other addresses that may write here; both in the
    form of the header Origin, scheme://host[:port].
    """

    hosts_setting: str
    url_setting: str
    hosts: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        hosts_setting: str,
        url_setting: str,
        *,
        hosts: Iterable[str] = (),
        urls: Iterable[str | None] = (),
        others: Iterable[str] = (),
    ) -> Names:
        """What settings say: `hosts` by name, a port is passed over; `urls` of the server itself; `others` by URL."""
        own = frozenset(origin for url in urls if (origin := origin_of(url)) is not None)
        names = {name for host in (*hosts, *(urlsplit(url).netloc for url in own)) if (name := host_name(host))}
        trusted = frozenset(origin for other in others if (origin := origin_of(other)) is not None)
        return cls(hosts_setting, url_setting, frozenset(names), own, trusted)

    def refusal(self, scope: Mapping[str, Any]) -> Refusal | None:
        """Why a request, as ASGI hands it over, is not to be answered; None: it may be."""
        return self._wrong_host(scope) or self._foreign_page(scope)

    def _wrong_host(self, scope: Mapping[str, Any]) -> Refusal | None:
        said = _values(scope, b"host")
        name = host_name(said[0]) if len(said) == 1 else None
        if name is not None and (is_loopback(name) or name in self.hosts):
            return None
        what = f"the name {said[0][:200]!r}" if len(said) == 1 else f"a request with {len(said)} headers Host"
        words = f"this server does not answer to {what}; if it is one of its names, add it to {self.hosts_setting}"
        return Refusal(MISDIRECTED, words)

    def _foreign_page(self, scope: Mapping[str, Any]) -> Refusal | None:
        """A write of a page that is not of this server. Programs send neither of the headers."""
        if scope.get("method") in HARMLESS:
            return None
        said = _values(scope, b"origin")
        origins = [origin_of(origin) for origin in said]
        received = origin_of(f"{scope.get('scheme', 'http')}://{_values(scope, b'host')[0]}")
        if len(said) == 1 and origins[0] in self.others:
            return None
        if len(said) > 1 or any(origin is None or origin not in self.own | {received} for origin in origins):
            words = (
                f"a page of {said[0][:200]!r} may not write here; if that is this server's own address, set "
                f"{self.url_setting} to it"
            )
            return Refusal(FORBIDDEN, words)
        if any(site.strip().lower() == "cross-site" for site in _values(scope, b"sec-fetch-site")):
            return Refusal(FORBIDDEN, "a page of another site may not write here")
        return None


def read_hosts(text: str, setting: str) -> list[str]:
    """The names in a setting, which separates them by commas. A port is passed over: a tunnel may end at any.

    Raises:
        ValueError: something in it is no name of one host; tells the setting.
    """
    said = [part.strip() for part in text.split(",") if part.strip()]
    for part in said:
        name = host_name(part)
        if name is None or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", name):
            raise ValueError(
                f"{setting} lists names of hosts, separated by commas, like gpu-1,lab.example.org: {part!r} is none. "
                "Ports need not be said, and a pattern like *.example.org would let in names that are not yours"
            )
    return [name for part in said if (name := host_name(part))]


def host_name(host: str) -> str | None:
    """The name in `name[:port]`, in lower case, an IPv6 address without its brackets; None: it is not of that form."""
    try:
        parts = urlsplit(f"//{host.strip()}")
        plain = "@" not in parts.netloc and not (parts.path or parts.query or parts.fragment)
        return parts.hostname if plain and (parts.port or 0) >= 0 else None
    except ValueError:  # what stands in the place of the port is none
        return None


def origin_of(url: str | None) -> str | None:
    """scheme://host[:port] of a URL, the scheme's own port left out; None: it is not a URL of that kind."""
    try:
        parts = urlsplit((url or "").strip())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}")


def _values(scope: Mapping[str, Any], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]
