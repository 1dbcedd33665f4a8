"""A server between a client and MLflow that fails as networks and servers do; what passes it reaches the real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import httpx

Fault = Literal["refused", "lost answer", "slow answer"]
"""Answered 500 and not carried out; carried out and answered by a closed connection, or `slow_seconds` late."""
Choice = Callable[[str, str], "Fault | None"]
"""Method and path → what happens to this request."""


class Unreliable:
    """`choose` may be changed at any time; `requests` lists the method and path of all that came."""

    def __init__(self, target: str, slow_seconds: float) -> None:
        self.choose: Choice = lambda method, path: None
        self.requests: list[str] = []
        self.released = threading.Event()
        self._target = target
        self._slow_seconds = slow_seconds
        self.client = httpx.Client(timeout=60)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Pass one request on, or not."""
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        path = request.path.split("?")[0]
        self.requests.append(f"{request.command} {path}")
        fault = self.choose(request.command, path)
        if fault == "refused":
            request.send_error(500)
            return
        headers = {key: value for key, value in request.headers.items() if key.lower() not in ("host", "connection")}
        answer = self.client.request(request.command, self._target + request.path, content=body, headers=headers)
        if fault == "slow answer":
            self.released.wait(self._slow_seconds)
        if fault == "lost answer":
            request.close_connection = True
            return
        request.send_response(answer.status_code)
        for key in ("Content-Type", "Content-Disposition"):
            if key in answer.headers:
                request.send_header(key, answer.headers[key])
        request.send_header("Content-Length", str(len(answer.content)))
        request.end_headers()
        request.wfile.write(answer.content)


@contextmanager
def unreliable(target: str, slow_seconds: float = 3600) -> Iterator[tuple[str, Unreliable]]:
    """The address of a server that passes on to `target`, and what chooses its faults."""
    behind = Unreliable(target, slow_seconds)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            behind.handle(self)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", behind
    finally:
        behind.released.set()
        server.shutdown()
        server.server_close()
        behind.client.close()
