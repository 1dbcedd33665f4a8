"""To which names a server answers, and which pages may have something changed by it.

A browser sends what any page tells it to, from inside the network that the server is in. So a request is looked at
twice before anybody asks who it is from:

- Host. A page of another site can have its own name resolve to this machine, and then its scripts read whatever the
  server says (DNS rebinding); the header still tells the name. So only known names are answered to. An address needs
  no list: a page whose Host is an address came from that address, and no resolver changes that. Ports do not matter,
  for they do not to a resolver, and a tunnel may end at any.
- Origin and Sec-Fetch-Site, where something is to be changed: a page can send a form here, which its reader's browser
  adds cookies to. No script can change or leave out these headers; programs send neither.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from service.addresses import shown_part

HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing. Everything else is a write, with a body or without."""
UNREADABLE = 400
FORBIDDEN = 403
MISDIRECTED = 421

_DEFAULT_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_-])?\.?)(?::([0-9]{0,5}))?", re.IGNORECASE)
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered: an HTTP status, and words for whoever sent it. They name the setting to change."""

    status: int
    words: str


@dataclass(frozen=True, slots=True)
class TrustedNames:
    """The names and the pages that one server trusts.

    `hosts_setting`, `url_setting` and, if there is one, `pages_setting` are named in refusals. `hosts` hold no port.
    `own` are the server's addresses as browsers reach it, `others` the pages of other addresses that may write here;
    both in the form of the header Origin, scheme://host[:port].
    """

    hosts_setting: str
    url_setting: str
    pages_setting: str | None = None
    hosts: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        hosts_setting: str,
        url_setting: str,
        pages_setting: str | None = None,
        *,
        hosts: Iterable[str] = (),
        urls: Iterable[str | None] = (),
        others: Iterable[str] = (),
    ) -> TrustedNames:
        """What settings say: `hosts` by name, a port is passed over; `urls` of the server itself; `others` by URL."""
        own = frozenset(origin for url in urls if (origin := origin_of(url)) is not None)
        names = {name for host in (*hosts, *map(_host_in, own)) if (name := host_name(host)) is not None}
        trusted = frozenset(origin for other in others if (origin := origin_of(other)) is not None)
        return cls(hosts_setting, url_setting, pages_setting, frozenset(names), own, trusted)

    def refusal(self, scope: Mapping[str, Any]) -> Refusal | None:
        """Why a request, as ASGI hands it over, is not to be answered; None: it may be.

        The scheme is the connection's own, or what a proxy said of its own where the server was told to believe it.
        """
        hosts = _values(scope, b"host")
        if len(hosts) != 1:
            return Refusal(UNREADABLE, f"a request has one header Host, and this one has {len(hosts) or 'none'}")
        name, received = host_name(hosts[0]), _origin(f"{scope.get('scheme', 'http')}://{hosts[0]}")
        if name is None or received is None:
            return Refusal(UNREADABLE, f"the header Host is not the name of a host: {_shown(hosts[0])}")
        if not (name == "localhost" or _is_address(name) or name in self.hosts):
            words = (
                f"this server does not answer to the name {_shown(name)}; if it is one of its names, add it to "
                f"{self.hosts_setting} where the server is started. Localhost and addresses need not be there"
            )
            return Refusal(MISDIRECTED, words)
        return self._foreign_page(scope, received)

    def _foreign_page(self, scope: Mapping[str, Any], received: str) -> Refusal | None:
        method = scope.get("method")
        preflight = method == "OPTIONS" and bool(_values(scope, b"access-control-request-method"))
        if method in HARMLESS and not preflight:
            return None
        said, sites = _values(scope, b"origin"), _values(scope, b"sec-fetch-site")
        if len(said) > 1 or len(sites) > 1:
            return Refusal(UNREADABLE, "a request has one header Origin and one Sec-Fetch-Site, or none")
        page = _origin(said[0]) if said else None
        if page is not None and page in self.others:
            return None
        if said and (page is None or page not in self.own | {received}):
            words = f"a page of {_shown(said[0])} may not write here; if that is this server's own address, set "
            words += f"{self.url_setting} to it"
            words += (
                f"; if pages of that address are yours, add it to {self.pages_setting}" if self.pages_setting else ""
            )
            return Refusal(FORBIDDEN, words)
        # A page of ours is of no other site, nor of one that only shares it; `none` is a person at the address bar.
        if sites and sites[0].lower() not in ("same-origin", "none"):
            return Refusal(FORBIDDEN, f"a page of another site may not write here (Sec-Fetch-Site: {_shown(sites[0])})")
        return None


def read_hosts(text: str, setting: str) -> list[str]:
    """The names in a setting, which separates them by commas. A port is passed over: a tunnel may end at any.

    Raises:
        ValueError: something in it is no name of one host; tells the setting.
    """
    said = [part.strip() for part in text.split(",") if part.strip()]
    for part in said:
        if host_name(part) is None:
            raise ValueError(
                f"{setting} lists names of hosts, separated by commas, like gpu-1,lab.example.org: "
                f"{shown_part(part, text)} is none. Ports need not be said, and a pattern like "
                "*.example.org would let in names that are not yours"
            )
    return [name for part in said if (name := host_name(part))]


def read_origins(text: str, setting: str) -> list[str]:
    """The origins in a setting, which separates them by commas, as browsers write them.

    Raises:
        ValueError: something in it is none; tells the setting.
    """
    said = [part.strip() for part in text.split(",") if part.strip()]
    for part in said:
        if _origin(part) is None:
            raise ValueError(
                f"{setting} lists origins of pages, separated by commas, like https://pages.example.org or "
                f"http://localhost:3000: {shown_part(part, text)} is none. A path is no part of one, and * would let "
                "in everybody's pages"
            )
    return [origin for part in said if (origin := _origin(part))]


def host_name(host: str) -> str | None:
    """The name in `name[:port]`, in lower case and without a dot at its end; an address without brackets and in its
    shortest form; None: it is not of that form."""
    return parts[0] if (parts := _parts(host)) is not None else None


def origin_of(url: str | None) -> str | None:
    """scheme://host[:port] of a URL, the scheme's own port left out; None: it is not a URL of that kind."""
    scheme, separator, rest = (url or "").strip().partition("://")
    return _origin(scheme + separator + re.split("[/?#]", rest, maxsplit=1)[0])


def _origin(text: str) -> str | None:
    """One spelling of a text that is an origin and nothing else."""
    scheme, _, authority = text.partition("://")
    parts = _parts(authority)
    if (usual := _DEFAULT_PORTS.get(scheme.lower())) is None or parts is None:
        return None
    name, port = parts
    host = f"[{name}]" if ":" in name else name
    return f"{scheme.lower()}://{host}" + ("" if port in (None, usual) else f":{port}")


def _parts(authority: str) -> tuple[str, int | None] | None:
    """Name and port of `name[:port]`."""
    found = _AUTHORITY.fullmatch(authority)
    if found is None or ".." in authority or int(found[2] or 0) > 65535:
        return None
    name = found[1].lower().removesuffix(".").removeprefix("[").removesuffix("]")
    if _is_address(name):
        name = str(ipaddress.ip_address(name))
    elif found[1].startswith("["):
        return None
    return name, int(found[2]) if found[2] else None


def _host_in(origin: str) -> str:
    return origin.partition("://")[2]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _values(scope: Mapping[str, Any], name: bytes) -> list[str]:
    return [value.decode("latin-1").strip(" \t") for key, value in scope["headers"] if key.lower() == name]


def _shown(text: str) -> str:
    """What somebody sent, for an answer or a log: nothing in it drives a terminal."""
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
