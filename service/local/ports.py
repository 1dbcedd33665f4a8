"""Ports of 127.0.0.1: those that a stack keeps for its account, and those that a server takes by itself."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

from service.web.listening import ANOTHER_PORT, bind

HOST = "127.0.0.1"


class Kept:
    """A port of this account: `sockets` are bound to it and never listen."""

    def __init__(self, port: int, sockets: Sequence[socket.socket]) -> None:
        self.port = port
        self.sockets = sockets

    def close(self) -> None:
        """Let others have it."""
        for held in self.sockets:
            held.close()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def keep(preferred: int) -> Kept:
    """Take the preferred port, or else a free one, for this account; 0 asks for a free one.

    Until it is closed no other account can listen there, while servers of this one come and go. Nothing listens in
    between: who asks while the server is away is refused at once, and does not wait for the next one.

    Raises:
        RuntimeError: there is no free port.
    """
    for port in (preferred, 0):
        with contextlib.suppress(OSError), contextlib.ExitStack() as taken:
            # At first as a server takes it: alone, but beside what is left of the connections of a former one.
            kept = taken.enter_context(bind(HOST, port))
            # From now on Linux lets others have it who share it too, and are of this account; with the first option
            # left on, it would let anybody.
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # In between somebody may have come to listen: then no server of ours could.
            with bind(*kept.getsockname(), shared=True) as server:
                server.listen()
            found = int(kept.getsockname()[1])
            beside = _keep_by_ipv6(found)
            taken.pop_all()
            return Kept(found, [kept, *beside])
    raise RuntimeError(f"no free port on {HOST}")


def _keep_by_ipv6(port: int) -> list[socket.socket]:
    """The same port of all IPv6 addresses; none where there is no IPv6.

    `localhost` may be ::1. And who has bound [::] for IPv6 alone and lets go of it may bind it for both, beside whoever
    keeps 127.0.0.1: Linux then counts the port as theirs.

    Raises:
        OSError: somebody else has it.
    """
    try:
        held = socket.socket(socket.AF_INET6)
    except OSError:
        return []
    try:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("::", port))
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return []
        raise
    return [held]


def port_or_free(preferred: int) -> int:
    """The preferred port if nobody has it, by IPv6 neither, else a free one; 0 asks for a free one. It is not kept."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), bind(HOST, port) as probe, contextlib.ExitStack() as beside:
            found = int(probe.getsockname()[1])
            for held in _keep_by_ipv6(found):
                beside.enter_context(held)
            return found
    raise RuntimeError(f"no free port on {HOST}")


def require_free(port: int) -> None:
    """Refuse a port at which the server that it belongs to could not listen.

    Raises:
        RuntimeError: who has it, and the remedy.
    """
    try:
        bind(HOST, port).close()
    except OSError as error:
        raise RuntimeError(f"{error}; {ANOTHER_PORT}") from None
