"""Which addresses are this machine's own: what goes there is read by nobody on the way; and who listens there."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = b" 00000000:0000 0A ", b" 00000000000000000000000000000000:0000 0A "
"""Of a row, whom it is connected to (nobody) and its state."""
_ACCOUNT, _FILE = 7, 9
_EVERY = ("0.0.0.0", "::", "::ffff:0.0.0.0")
_OWN = ("127.0.0.1", "::ffff:127.0.0.1", "::1")


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
    return any(address.is_loopback or address.is_unspecified for address in _addresses(host))


def listeners(port: int) -> set[int] | None:
    """The accounts that listen at a port of this machine, by whatever address and by IPv6 too; None where the kernel
    does not say (it is no Linux)."""
    rows = _listening_at(port)
    return None if rows is None else {account for there, account in rows if there in _words(*_OWN, *_EVERY, port=port)}


def answering(host: str, port: int) -> set[int] | None:
    """The accounts whose listeners may be given a connection to this address of this machine; None as for `listeners`.

    As the kernel does it: who listens at the very address gets all of them, and who listens at every address none. So
    it is of no account here who listens at [::], for IPv6 alone or for both, beside a server at 127.0.0.1.
    """
    rows = _listening_at(port)
    if rows is None:
        return None
    exact = _words(*_spelled(host), port=port)
    return {account for there, account in rows if there in exact} or {
        account for there, account in rows if there in _words(*_EVERY, port=port)
    }


class NotOurs(ConnectionError):
    """Where a server of this account is expected, another account listens."""


def is_of(account: int, host: str, port: int) -> bool:
    """Whether this account alone answers there; also where the kernel does not say."""
    there = answering(host, port)
    return there is None or there == {account}


def require_ours(host: str, port: int) -> None:
    """Refuse a server on this machine that is not this account's.

    What is elsewhere is let pass: its kernel is not asked.

    Raises:
        NotOurs: says whose the port is, and the remedy.
        ConnectionError: nobody listens there any more.
    """
    if not leads_here(host):
        return
    there = [answering(str(address), port) for address in _addresses(host)]
    _refuse_others(None if None in there else set().union(*filter(None, there)), host, port)


def require_connected_to_ours(connection: socket.socket) -> None:
    """Refuse the server that a connection has led to, if it is on this machine and not this account's. To be asked
    before anything secret goes through it: a server that is away, or on its way, leaves its port to whoever takes it.

    Raises:
        NotOurs, ConnectionError: as for `require_ours`.
    """
    (host, port), own = connection.getpeername()[:2], connection.getsockname()[:2]
    if not leads_here(host):
        return
    # In this order: what nobody has accepted yet is of one who listens still, and so was seen to.
    there = answering(host, port)
    _refuse_others(there, host, port)
    if there is not None and (accepted := _accepted_by((host, port), own)) is not None:
        _refuse_others({accepted}, host, port)


def _refuse_others(accounts: set[int] | None, host: str, port: int) -> None:
    if accounts is None or accounts == {os.geteuid()}:
        return
    if others := _named(accounts):
        remedy = "nothing secret is sent there; start `barlow up` again"
        raise NotOurs(f"port {port} of {host} is taken{others}, and {remedy}")
    raise ConnectionError(f"nobody listens at port {port} of {host} any more")


def others_at(port: int) -> str:
    """Which other accounts listen at a port, in words behind others; empty: none, or the kernel does not say."""
    return _named(listeners(port) or set())


def taken_by(port: int) -> str:
    """Who listens at a port that could not be had, in words behind others; empty where the kernel does not say."""
    if others := others_at(port):
        return others
    return " by another program of this account" if listeners(port) else ""


def _named(accounts: set[int]) -> str:
    others = sorted(accounts - {os.geteuid()})
    return f" by another account (user id {', '.join(map(str, others))})" if others else ""


def _listening_at(port: int) -> list[tuple[bytes, int]] | None:
    """The rows of the kernel's tables of who listens at a port: at which address, and of which account."""
    there = f":{port:04X} ".encode()
    found: list[tuple[bytes, int]] = []
    try:
        for rows in _tables():
            for line in rows:
                if not any(state in line for state in _LISTENING):
                    # Who listens stands first. Of connections there may be very many, and each row costs.
                    if found:
                        break
                elif there in line:
                    row = line.split()
                    found.append((row[1], int(row[_ACCOUNT])))
    except FileNotFoundError:
        return None
    return found


def _accepted_by(server: tuple[str, int], client: tuple[str, int]) -> int | None:
    """The account that has accepted a connection; None: nobody has yet, or it is closed again."""
    ends = [
        _kernel_words(ours, server[1]) + b" " + _kernel_words(theirs, client[1]) + b" "
        for ours, theirs in zip(_spelled(server[0]), _spelled(client[0]), strict=True)
    ]
    for rows in _tables():
        for line in rows:
            if any(both in line for both in ends):
                row = line.split()
                # Before it is accepted it belongs to no file, and the account there means nothing.
                return int(row[_ACCOUNT]) if row[_FILE] != b"0" else None
    return None


def _tables() -> Iterator[BinaryIO]:
    """Those of the connections of this machine, by IPv4 and by IPv6, behind their heads.

    Raises:
        FileNotFoundError: it is no Linux.
    """
    with _TABLES[0].open("rb") as rows:
        rows.readline()
        yield rows
    with contextlib.suppress(FileNotFoundError), _TABLES[1].open("rb") as rows:  # there is none without IPv6
        rows.readline()
        yield rows


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Where a connection to a host goes, as far as it stands in its name."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))  # 127.1 and 0x7f000001, as connect(2) is given them
        except OSError:
            return []
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return [address]


def _spelled(number: str) -> list[str]:
    """An address as both tables have it."""
    (address,) = _addresses(number)
    return [str(address), f"::ffff:{address}"] if address.version == 4 else [str(address)]


def _words(*addresses: str, port: int) -> set[bytes]:
    return {_kernel_words(address, port) for address in addresses}


def _kernel_words(address: str, port: int) -> bytes:
    packed = ipaddress.ip_address(address).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}".encode()
