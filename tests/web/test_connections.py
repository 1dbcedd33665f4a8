"""Who holds connections without asking for anything, or without going on."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from service.web import connections
from service.web.connections import PunctualProtocol, open_more_files

LARGE = 50_000_000
"""Bytes; more than the kernel takes for whoever reads none."""


class _Server:
    """Says hello at once, at /slow when the body has come, at /large a lot, and at /silent after `speak`."""

    def __init__(self) -> None:
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            http=PunctualProtocol,
            lifespan="off",
            log_level="warning",
            timeout_keep_alive=3600,
        )
        self.uvicorn = uvicorn.Server(config)
        self.speak = threading.Event()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            while (message := await receive()).get("more_body"):
                pass
            if message["type"] == "http.disconnect":
                return
        length, pieces = (LARGE, LARGE // 100_000) if scope["path"] == "/large" else (5, 1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % length)]})
        while scope["path"] == "/silent" and not self.speak.is_set():
            await asyncio.sleep(0.05)
        for left in reversed(range(pieces)):
            body = b"hello" if length == 5 else bytes(100_000)
            await send({"type": "http.response.body", "body": body, "more_body": left > 0})

    def open(self) -> int:
        """How many connections it has."""
        return len(self.uvicorn.server_state.connections)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> _Server:
    """One whose patience is short."""
    monkeypatch.setattr(connections, "LOOK_SECONDS", 2.0)
    return _Server()


@pytest.fixture
def port(server: _Server) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.uvicorn.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.speak.set()
        server.uvicorn.should_exit = True
        thread.join()


HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"


@pytest.mark.parametrize(
    ("before", "begun"),
    [(b"", b""), (b"", HEAD), (HEAD + b"\r\n", HEAD)],
    ids=["silent", "a piece of a head", "a piece of the second head"],
)
def test_a_connection_that_asks_for_nothing_is_hung_up(port: int, before: bytes, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        if before:
            connection.sendall(before)
            assert b"hello" in _until(connection, b"hello")
        connection.sendall(begun)
        assert connection.recv(1000) == b"", "until then nothing is said"


def test_who_is_still_sending_a_body_is_left_its_time(port: int) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(4):
            yield b"x"
            threading.Event().wait(1.5)

    assert httpx.post(f"http://127.0.0.1:{port}/slow", content=body(), timeout=60).text == "hello"


def _until(connection: socket.socket, end: bytes) -> bytes:
    said = b""
    while not said.endswith(end):
        piece = connection.recv(1000)
        assert piece, "it ends in the middle"
        said += piece
    return said


BODY = b"POST /slow HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n"
LARGE_HEAD = b"GET /large HTTP/1.1\r\nHost: here\r\n"


def _connect(port: int, said: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(said)
    return connection


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_who_owes_a_body_or_takes_nothing_is_hung_up_and_who_waits_or_reads_stays(server: _Server, port: int) -> None:
    owing = [BODY + b"\r\n", BODY + b"\r\nx", BODY + b"Expect: 100-continue\r\n\r\n", LARGE_HEAD + b"\r\n"]
    owing += [LARGE_HEAD + b"Connection: close\r\n\r\n", (LARGE_HEAD + b"\r\n") * 20]
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(_connect(port, b"GET /silent HTTP/1.1\r\nHost: here\r\n\r\n"))
        reads = stack.enter_context(_connect(port, LARGE_HEAD + b"\r\n"))
        for said in owing:
            stack.enter_context(_connect(port, said))
        _wait_until(lambda: server.open() == 2 + len(owing))

        def read_a_little() -> bool:
            assert len(reads.recv(100_000)) > 0
            return server.open() <= 2

        _wait_until(read_a_little)
        server.speak.set()
        assert _until(silent, b"hello")
        _wait_until(lambda: len(reads.recv(1_000_000)) > 0 and server.open() == 2)


def test_a_body_that_comes_drop_by_drop_has_a_time_in_all(
    server: _Server, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 2.0)
    with _connect(port, BODY + b"\r\n") as connection:

        def drop() -> bool:
            with contextlib.suppress(OSError):
                connection.send(b"x")
            time.sleep(0.3)
            return server.open() == 0

        _wait_until(lambda: server.open() == 1)
        _wait_until(drop)


def test_the_process_may_open_as_many_files_as_it_may_have_streams() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        open_more_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(8192, before[1] % 2**63)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
