"""HTTP to others. This machine, and servers of ours, are asked directly; whatever else, as the user's shell says."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from service.loopback import NotOurs, leads_here, require_connected_to_ours

_LAST_PORT = 65535
_HOST = re.compile(rb"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_CONNECTED = "connection.connect_tcp.complete"
"""What httpx calls the moment in which a connection is there and nothing was sent."""
_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Believes no certificate: where none is asked for, to read all the usual ones would take longer than what is asked."""


class AnotherAccounts(httpx.ConnectError):
    """The server on this machine is not known to be this account's, as it is expected to be; nothing was sent to it."""


def client(url: str, *, ours: bool = False, same_account: bool = False, **options: Any) -> httpx.Client:
    """A client for this address; `options` are those of httpx.Client.

    An address of this machine is asked directly, whatever the environment says: a proxy that is elsewhere cannot reach
    it, and would read the token on the way. Other addresses are reached through the proxy that the environment names
    for them (http_proxy, https_proxy, all_proxy, no_proxy), unless the server is `ours`.

    With `same_account` a server on this machine is to be this account's: the kernel is asked whose it is when a
    connection is there and nothing was sent, and requests raise AnotherAccounts. One to a proxy is the proxy's, and is
    let pass.

    Raises:
        httpx.InvalidURL: it is no address.
        ValueError: the proxy, or the file of certificates, is none; names the variable.
    """
    parsed = httpx.URL(url)
    variable, proxy = ("", None) if ours else _proxy(parsed)
    try:
        return httpx.Client(
            base_url=url,
            trust_env=False,
            verify=_certificates() if parsed.scheme == "https" else _NOBODY,
            proxy=proxy,
            event_hooks={"request": [_look]} if same_account and proxy is None else None,
            **options,
        )
    except ImportError:
        raise ValueError(
            f"{variable} names a SOCKS proxy ({_shown(proxy)}), which takes a package: pip install socksio. Or unset "
            f"it, or name {parsed.host} in no_proxy"
        ) from None


def way(url: str) -> str:
    """How `client` reaches an address that is not ours, for an error: the proxy without its password, if there is one.

    Raises:
        httpx.InvalidURL, ValueError: as for `client`.
    """
    proxy = _proxy(httpx.URL(url))[1]
    return "" if proxy is None else f" through the proxy {_shown(proxy)}"


def _look(request: httpx.Request) -> None:
    """Have a connection that is made for this request looked at."""

    def looked(event: str, info: Mapping[str, Any]) -> None:
        if event == _CONNECTED:
            connection = info["return_value"]
            try:
                _require_ours(connection)
            except httpx.ConnectError:
                connection.close()
                raise

    request.extensions["trace"] = looked


async def _look_async(request: httpx.Request) -> None:
    async def looked(event: str, info: Mapping[str, Any]) -> None:
        if event == _CONNECTED:
            connection = info["return_value"]
            try:
                await asyncio.to_thread(_require_ours, connection)
            except httpx.ConnectError:
                await connection.aclose()
                raise

    request.extensions["trace"] = looked


LOOKING: Mapping[str, list[Callable[..., Any]]] = {"request": [_look_async]}
"""What `same_account` is for an httpx.AsyncClient: its `event_hooks`."""


def _require_ours(connection: Any) -> None:
    try:
        require_connected_to_ours(connection.get_extra_info("socket"))
    except NotOurs as error:
        raise AnotherAccounts(str(error)) from None
    except ConnectionError as error:
        raise httpx.ConnectError(str(error)) from None


def _proxy(url: httpx.URL) -> tuple[str, httpx.URL | None]:
    """Which variable names a proxy for this address, and which it is."""
    if leads_here(url.host) or proxy_bypass(url.host if url.port is None else f"{url.host}:{url.port}"):
        return "", None
    named = getproxies()
    kind = url.scheme if named.get(url.scheme) else "all"
    if not (found := named.get(kind)):
        return "", None
    spelled = (f"{kind}_proxy", f"{kind}_proxy".upper())
    variable = next((name for name in spelled if os.environ.get(name)), spelled[0])
    try:
        proxy = httpx.URL(found if "://" in found else f"http://{found}")
    except httpx.InvalidURL:
        proxy = httpx.URL()
    if not _is_of_a_proxy(proxy):
        # What it says is not shown: it may hold a password, and where that is not percent-encoded, in any part of it.
        raise ValueError(
            f"{variable} is not the address of a proxy (http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT with both "
            "percent-encoded: @ is %40, / is %2F); mend it, or unset it"
        )
    return variable, proxy


def _is_of_a_proxy(url: httpx.URL) -> bool:
    known = url.scheme in ("http", "https", "socks5", "socks5h") and (url.port or 1) <= _LAST_PORT
    return known and _HOST.fullmatch(url.raw_host) is not None and url.raw_path in (b"", b"/") and not url.fragment


def _shown(proxy: httpx.URL | None) -> str:
    return "" if proxy is None else str(proxy.copy_with(userinfo=b"")).rstrip("/")


def _certificates() -> ssl.SSLContext | bool:
    """Whom to believe: SSL_CERT_FILE or SSL_CERT_DIR of a place with certificates of its own, else the usual ones."""
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if named := os.environ.get(variable):
            try:
                os.stat(named)  # a folder that is not there would be taken without a word
                if variable == "SSL_CERT_FILE":
                    return ssl.create_default_context(cafile=named)
                return ssl.create_default_context(capath=named)
            except OSError as error:
                raise ValueError(f"{variable} is {named}, which cannot be used: {error.strerror or error}") from None
    return True
