"""A process that dies between two statements, as the database sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event


class Cut:
    """Counts what an engine's connections send; the connection that is about to send number `before` is ended."""

    def __init__(self, url: str, before: int | None) -> None:
        self._url = url
        self._before = before
        self.sent = 0

    def statement(self, connection: Connection, *_: Any) -> None:
        self.sent += 1
        if self.sent == self._before:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            # By the server, which is through with it when this returns: whatever it held is free.
            with psycopg.connect(self._url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 10000)", [driver.info.backend_pid])


@contextmanager
def cut(engine: Engine, url: str, *, before: int | None = None) -> Iterator[Cut]:
    """End the connection of `engine` that is about to send its statement (or commit) of this number; None: only count.

    `url`: the same database, for the one that ends it.
    """
    cutter = Cut(url, before)
    hooks = {"before_cursor_execute": cutter.statement, "commit": cutter.statement}
    for name, hook in hooks.items():
        event.listen(engine, name, hook)
    try:
        yield cutter
    finally:
        for name, hook in hooks.items():
            event.remove(engine, name, hook)
