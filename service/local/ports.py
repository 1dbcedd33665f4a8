"""Ports of 127.0.0.1: those that a stack keeps for its account, and those that a server takes by itself."""

from __future__ import annotations

import contextlib
import os
import socket

from service.loopback import listeners
from service.web.listening import bind

HOST = "127.0.0.1"


def keep(preferred: int) -> socket.socket:
    """Take the preferred port, or else a free one, for this account; 0 asks for a free one.

    Until the returned socket is closed no other account can listen there, while servers of this one come and go. It is
    bound and never listens: who asks while the server is away is refused at once, and does not wait for the next one.

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
            taken.pop_all()
            return kept
    raise RuntimeError(f"no free port on {HOST}")


def port_or_free(preferred: int) -> int:
    """The preferred port if nobody has it, else a free one; 0 asks for a free one. It is not kept."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), bind(HOST, port) as probe:
            return int(probe.getsockname()[1])
    raise RuntimeError(f"no free port on {HOST}")


def require_free(port: int) -> None:
    """Refuse a port at which the server that it belongs to could not listen.

    Raises:
        RuntimeError: who has it, and the remedy.
    """
    try:
        bind(HOST, port).close()
    except OSError as error:
        raise RuntimeError(
            f"{error}{others_at(port)}; stop `barlow up` and start it again, it then takes another port"
        ) from None


def others_at(port: int) -> str:
    """Which other accounts listen at a port, in words behind others; empty: none, or the kernel does not say."""
    accounts = (listeners(port) or set()) - {os.geteuid()}
    return f" by another account (user id {', '.join(map(str, sorted(accounts)))})" if accounts else ""
