"""Who holds connections without asking for anything."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from service.web import connections
from service.web.connections import PunctualProtocol, open_more_files


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """Hello at once, and at /slow when the body has come."""
    if scope["path"] == "/slow":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """That of a server whose patience is short."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 2.0)
    config = uvicorn.Config(
        _answer, http=PunctualProtocol, lifespan="off", log_level="warning", timeout_keep_alive=3600
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
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


def test_the_process_may_open_as_many_files_as_it_may_have_streams() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        open_more_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(8192, before[1] % 2**63)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
