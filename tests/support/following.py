"""Followers of an app on the test's own event loop, each a client that can be slow, go away and be looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI


class Follower:
    """One client of a stream: what it was sent, and how fast it takes it."""

    def __init__(self) -> None:
        self.status = 0
        self.text = ""
        self.takes = asyncio.Event()
        self.takes.set()
        self.gone = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def kinds(self) -> list[str]:
        """The events that came."""
        return [line.removeprefix("event: ") for line in self.text.splitlines() if line.startswith("event: ")]

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        return [line.removeprefix("id: ") for line in self.text.splitlines() if line.startswith("id: ")]

    async def has(self, text: str) -> None:
        """Wait until it was sent this."""
        while text not in self.text:
            assert self.task is not None
            assert not self.task.done() or text in self.text, self.text
            await asyncio.sleep(0.005)

    async def ended(self) -> None:
        """Wait until the server has ended the stream."""
        assert self.task is not None
        await self.task

    async def leave(self) -> None:
        """Close the connection."""
        self.gone.set()
        self.takes.set()
        await self.ended()


@contextlib.asynccontextmanager
async def following(app: FastAPI) -> AsyncIterator[Any]:
    """`follow(path, headers)` makes a follower; all of them leave at the end."""
    all_of_them: list[Follower] = []

    def follow(path: str, headers: Mapping[str, str] | None = None) -> Follower:
        follower = Follower()
        follower.task = asyncio.create_task(_serve(app, follower, path, headers or {}))
        all_of_them.append(follower)
        return follower

    try:
        yield follow
    finally:
        for follower in all_of_them:
            await follower.leave()


async def _serve(app: FastAPI, follower: Follower, path: str, headers: Mapping[str, str]) -> None:
    given = {"Host": "localhost", "Accept": "text/event-stream", **headers}
    address = urlsplit(f"/api/v1{path}")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": address.path, "raw_path": address.path.encode(), "query_string": address.query.encode(),
        "root_path": "", "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80),
    }  # fmt: skip
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await follower.gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            follower.status = message["status"]
        else:
            follower.text += message.get("body", b"").decode()
            await follower.takes.wait()

    await app(scope, receive, send)
