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

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
"""The tables of sockets, by way of this process: /proc/net, which leads there, is hidden where /proc shows processes
alone (subset=pid)."""
_LINUX = os.uname().sysname == "Linux"
_LISTENING = b" 00000000:0000 0A ", b" 00000000000000000000000000000000:0000 0A "
"""The part of a row that says whom it is connected to (nobody) and its state."""
_ACCOUNT, _FILE = 7, 9
_EVERY_IPV4, _EVERY_IPV6 = ("0.0.0.0", "::ffff:0.0.0.0"), ("::",)
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
    does not say."""
    try:
        rows = _listening_at(port)
    except OSError:
        return None
    counted = _words(*_OWN, *_EVERY_IPV4, *_EVERY_IPV6, port=port)
    return {account for there, account in rows if there in counted}


def answering(host: str, port: int) -> set[int] | None:
    """The accounts whose listeners may be given a connection to this address of this machine; None: it is no Linux,
    whose kernel says it.

    As the kernel does it: who listens at the very address gets all of them, and who listens at every address none. So
    it is of no account here who listens at [::], for IPv6 alone or for both, beside a server at 127.0.0.1. By IPv4 who
    listens at 0.0.0.0 goes before who listens at [::]: beside it the kernel lets another account listen there for IPv6
    alone, and to who listens for both it prefers it.

    Raises:
        NotOurs: it is a Linux that hides who listens.
    """
    try:
        rows = _listening_at(port)
    except OSError as error:
        _refuse_hidden(error, host, port)
        return None
    spelled = _spelled(host)
    by_ipv4 = len(spelled) > 1
    for places in (spelled, _EVERY_IPV4 if by_ipv4 else _EVERY_IPV6, _EVERY_IPV6):
        counted = _words(*places, port=port)
        if found := {account for there, account in rows if there in counted}:
            return found
    return set()


class NotOurs(ConnectionError):
    """Where a server of this account is expected, another account listens, or may: the kernel hides who does."""


def is_of(account: int, host: str, port: int) -> bool:
    """Whether this account alone answers there; also where it is no Linux.

    Raises:
        NotOurs: as for `answering`.
    """
    there = answering(host, port)
    return there is None or there == {account}


def require_ours(host: str, port: int) -> None:
    """Refuse a server on this machine that is not this account's.

    What is elsewhere is let pass: its kernel is not asked.

    Raises:
        NotOurs: says whose the port is, or why that is not known, and the remedy.
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
    if not _is_of_this_machine(connection):
        return
    # In this order: what nobody has accepted yet is of one who listens still, and so was seen to.
    there = answering(host, port)
    _refuse_others(there, host, port)
    if there is None:
        return
    try:
        accepted = _accepted_by((host, port), own)
    except OSError as error:
        _refuse_hidden(error, host, port)
        return
    if accepted is not None:
        _refuse_others({accepted}, host, port)


def _is_of_this_machine(connection: socket.socket) -> bool:
    """Whether a connection has led to this machine, by a network's address of it, too: a name may stand for one."""
    peer = connection.getpeername()
    if leads_here(peer[0]) or peer[0] == connection.getsockname()[0]:
        return True
    with socket.socket(connection.family) as tried:
        try:
            tried.bind((peer[0], 0, *peer[2:]))  # only addresses of this machine can be had
        except OSError:
            return False
    return True


def _refuse_hidden(error: OSError, host: str, port: int) -> None:
    """Refuse a port of a Linux that does not say who listens there. Other systems have no such tables."""
    if _LINUX:
        raise NotOurs(
            f"who listens at port {port} of {host} cannot be told, and nothing secret is sent there: {error.filename} "
            f"cannot be read ({error.strerror}). Mount /proc whole where this runs, or let it be read (of systemd "
            "ProcSubset=all, of a container or sandbox its /proc)"
        )


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


def _listening_at(port: int) -> list[tuple[bytes, int]]:
    """The rows of the kernel's tables of who listens at a port: at which address, and of which account.

    Raises:
        OSError: as for `_tables`.
    """
    there = f":{port:04X} ".encode()
    found: list[tuple[bytes, int]] = []
    for rows in _tables():
        for line in rows:
            if not any(state in line for state in _LISTENING):
                # Who listens stands first. Of connections there may be very many, and each row costs.
                if found:
                    break
            elif there in line:
                row = line.split()
                found.append((row[1], int(row[_ACCOUNT])))
    return found


def _accepted_by(server: tuple[str, int], client: tuple[str, int]) -> int | None:
    """The account that has accepted a connection; None: nobody has yet, or it is closed again.

    Raises:
        OSError: as for `_tables`.
    """
    ends = [
        _kernel_words(ours, server[1]) + b" " + _kernel_words(theirs, client[1]) + b" "
        for ours, theirs in zip(_spelled(server[0]), _spelled(client[0]), strict=True)
    ]
    for rows in _tables():
        for line in rows:
            if any(both in line for both in ends):
                row = line.split()
                # It belongs to no file before it is accepted, and the account there means nothing.
                return int(row[_ACCOUNT]) if row[_FILE] != b"0" else None
    return None


def _tables() -> Iterator[BinaryIO]:
    """Those of the connections of this machine, by IPv4 and by IPv6, behind their heads.

    Raises:
        OSError: it is no Linux, or one that hides them.
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
