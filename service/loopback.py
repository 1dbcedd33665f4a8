"""Which addresses are this machine's own: what goes there is read by nobody on the way; and who listens there."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from pathlib import Path

_LISTENING = "0A"


def is_loopback(host: str) -> bool:
    """Whether a host, by name or by number, is this machine. A name but localhost may be anybody's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def leads_here(host: str) -> bool:
    """Whether a connection to `host` ends on this machine, in whatever way it is spelled: 127.1, 0.0.0.0, localhost.

    For where requests go. Who listens at 0.0.0.0 is heard by others, and is no loopback.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))  # 127.1 and 0x7f000001, as connect(2) is given them
        except OSError:
            return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def listeners(port: int) -> set[int] | None:
    """The accounts that listen at a port of 127.0.0.1, also by IPv6 for both; None where the kernel does not say (it is
    no Linux)."""
    by_ipv4 = ("127.0.0.1", "0.0.0.0")
    addresses = {_kernel_words(address, port) for address in (*by_ipv4, "::", *(f"::ffff:{one}" for one in by_ipv4))}
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return None
    with contextlib.suppress(OSError):  # there is none without IPv6
        lines += Path("/proc/net/tcp6").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {int(row[7]) for row in rows if row[3] == _LISTENING and row[1] in addresses}


class NotOurs(ConnectionError):
    """Where a server of this account is expected, another account listens."""


def is_of(account: int, port: int) -> bool:
    """Whether this account alone listens there; also where the kernel does not say."""
    there = listeners(port)
    return there is None or there == {account}


def require_ours(host: str, port: int) -> None:
    """Refuse a server on this machine that is not this account's. To be asked once a connection is there, and before
    anything secret goes through it: a server that is away, or on its way, leaves its port to whoever takes it.

    What is elsewhere is let pass: its kernel is not asked.

    Raises:
        NotOurs: says whose the port is, and the remedy.
        ConnectionError: nobody listens there any more.
    """
    if not is_loopback(host) or is_of(os.geteuid(), port):
        return
    if others := others_at(port):
        remedy = "nothing secret is sent there; start `barlow up` again"
        raise NotOurs(f"port {port} of {host} is taken{others}, and {remedy}")
    raise ConnectionError(f"nobody listens at port {port} of {host} any more")


def others_at(port: int) -> str:
    """Which other accounts listen at a port, in words behind others; empty: none, or the kernel does not say."""
    accounts = (listeners(port) or set()) - {os.geteuid()}
    return f" by another account (user id {', '.join(map(str, sorted(accounts)))})" if accounts else ""


def taken_by(port: int) -> str:
    """Who listens at a port that could not be had, in words behind others; empty where the kernel does not say."""
    if others := others_at(port):
        return others
    return " by another program of this account" if listeners(port) else ""


def _kernel_words(address: str, port: int) -> str:
    packed = ipaddress.ip_address(address).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"
