"""A process that dies between two statements, as the database sees it."""

from __future__ import annotations

import time
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


@contextmanager
def idled_out(engine: Engine, url: str, *, after: str) -> Iterator[None]:
    """Once, after a statement with this text in it, the server ends the transaction of `engine` that idles: what a
    process finds that was frozen amid it. `url`: the same database, for the one that waits until it has."""
    armed = [after]

    def idle(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if not armed or armed[0] not in statement:
            return
        armed.clear()
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with psycopg.connect(url, autocommit=True) as other:
            driver.execute("SET idle_in_transaction_session_timeout = '1ms'")
            ours = [driver.info.backend_pid]
            while other.execute("SELECT FROM pg_stat_activity WHERE pid = %s", ours).rowcount:
                time.sleep(0.01)

    event.listen(engine, "after_cursor_execute", idle)
    try:
        yield
    finally:
        event.remove(engine, "after_cursor_execute", idle)
    assert not armed, f"no statement had {after!r} in it"
