"""The sockets that servers of ours listen at."""

from __future__ import annotations

import errno
import socket

from service.loopback import taken_by

ANOTHER_PORT = "stop `barlow up` and start it again, it then takes another port"
"""The remedy where somebody else has the port of a part of a running stack."""


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket at this address; it does not listen yet.

    `shared`: the port is kept by a process of the same account, which shares it (service.local.ports).

    Raises:
        OSError: the port is taken, or the address is none of this machine's.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        said = f"cannot listen on {host} port {port}: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            said += taken_by(port)
            if shared:  # it was kept, so that nobody else could have it
                said += f"; {ANOTHER_PORT}"
        raise OSError(said) from None
    return bound
