"""Connections that nobody can hold for nothing: as many as the system gives, and none without a request for long."""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0
"""For how long a connection may bring no whole head of a request, at its begin or after a request."""
_OPEN_FILES = 8192
_BEGUN = object()


class PunctualProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on who says nothing, or says it drop by drop.

    h11 reads 64 kB of headers and no more, where uvicorn's other reader takes in what somebody sends without end. An
    idle connection that has had its answer has a time of its own, `timeout_keep_alive`.
    """

    _seen: object = None
    """What the connection was at when it was looked at last: a request, _BEGUN, or None before the first."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_later()

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self._seen = _BEGUN  # the next look is the first that sees this head
        super().data_received(data)

    def _look_later(self) -> None:
        self.loop.call_later(HEAD_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self.cycle is self._seen and self.timeout_keep_alive_task is None:
            self.transport.close()
            return
        self._seen = self.cycle
        self._look_later()


def open_more_files() -> None:
    """Every connection is an open file, and many systems let a process have a thousand unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
