"""Connections that nobody can hold for nothing: as many as the system gives, and none for long whose other end owes us
a request, the rest of a body or its taking of an answer, and does not move."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from typing import NamedTuple

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

LOOK_SECONDS = 30.0
"""For how long a connection may bring no whole head of a request, at its begin or after a request, or no byte of a body
that is waited for, or take no byte of an answer that lies ready."""
BODY_SECONDS = 120.0
"""The time after which a body that is waited for has to have come at SLOWEST on the average."""
SLOWEST = 500
"""Bytes a second."""
_OPEN_FILES = 8192
_BEGUN = object()
_ACKED = struct.Struct("120x Q")
"""tcpi_bytes_acked in the kernel's struct tcp_info."""


class _Sight(NamedTuple):
    """What a look has seen. Where it is the same as at the look before, nothing has moved."""

    cycle: RequestResponseCycle | None
    wants_body: bool
    unsent: int
    received: int
    acked: int


class PunctualProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on who says nothing, says it drop by drop, or does not take what is said.

    h11 reads 64 kB of headers and no more, where uvicorn's other reader takes in what somebody sends without end. An
    idle connection that has had its answer has a time of its own, `timeout_keep_alive`. A handler that computes and a
    stream that is silent owe nothing to anybody: they stay.
    """

    _seen: object = None
    """What the connection was at when it was looked at last: a request, _BEGUN, or None before the first."""
    _sight = _Sight(None, False, 0, 0, 0)
    _received = 0
    _before_body = 0
    """What had been received when the body came into sight that is waited for now."""
    _waited = 0.0
    """Seconds in which nothing but the other end kept that body from coming."""
    _next_look: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self.timeout_keep_alive_task is not None:
            self._seen = _BEGUN  # the next look is the first that sees this head
        super().data_received(data)

    def _look_later(self) -> None:
        self._next_look = self.loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.get_protocol() is not self:
            return  # a websocket, which has its own
        self._look_later()
        before, self._sight = self._sight, self._see()
        if self._stands_still(before) or self._brings_a_body_too_slowly(before):
            self.transport.abort()  # to close would be to wait until all is sent
        elif self._asks_for_nothing() and not self.transport.is_closing():
            self.transport.close()

    def _see(self) -> _Sight:
        cycle = self.cycle
        # The application may read later, and then nobody is waited for: what came fills its place, or is not asked for.
        paused = self.flow.read_paused or (cycle is not None and cycle.waiting_for_100_continue)
        wants_body = cycle is not None and cycle.more_body and not cycle.response_complete and not paused
        unsent = self.transport.get_write_buffer_size()
        return _Sight(cycle, wants_body, unsent, self._received, _acked(self.transport))

    def _stands_still(self, before: _Sight) -> bool:
        return (self._sight.wants_body or self._sight.unsent > 0) and self._sight == before

    def _brings_a_body_too_slowly(self, before: _Sight) -> bool:
        if self._sight.cycle is not before.cycle:
            self._before_body, self._waited = before.received, 0.0
        elif self._sight.wants_body and before.wants_body:
            self._waited += LOOK_SECONDS
        else:
            return False
        return self._waited >= BODY_SECONDS and self._received - self._before_body < self._waited * SLOWEST

    def _asks_for_nothing(self) -> bool:
        before, self._seen = self._seen, self.cycle
        waits = self.cycle is None or self.cycle.response_complete
        return waits and self.cycle is before and self.timeout_keep_alive_task is None


def _acked(transport: asyncio.Transport) -> int:
    """Bytes that the other end has taken: what leaves our buffer goes into one of the kernel's of megabytes first."""
    try:
        told = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
        return int(_ACKED.unpack(told)[0])
    except (OSError, struct.error):  # no TCP, or a kernel that does not count them
        return 0


def open_more_files() -> None:
    """Every connection is an open file, and many systems let a process have a thousand unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
