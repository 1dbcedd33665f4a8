"""A server that hears who asks it, and gives everybody the same answer."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Heard:
    """One request; names of headers in lower case."""

    path: str
    headers: dict[str, str]


class Ears:
    """On a free loopback port, from `with` to its end."""

    def __init__(self, answer: bytes, *, status: int = 200) -> None:
        self.heard: list[Heard] = []
        ears = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ears.append(Heard(self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_PUT = do_DELETE = do_PATCH = do_CONNECT = do_GET

            def log_message(self, *_: object) -> None:
                """Nothing: the test reads `heard`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Ears:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
