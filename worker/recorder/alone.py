"""Turns among exporters, of which any number may run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session


@contextmanager
def alone(engine: Engine, what: str) -> Iterator[Session | None]:
    """A session while nobody else is at `what`; None: somebody is.

    Each of its statements is its own transaction: none is open while MLflow takes its time. If the connection breaks,
    the lock is gone, and so is the way to move a position.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        lock = func.hashtextextended(f"barlow.recorder.{what}", 0)
        if not connection.scalar(select(func.pg_try_advisory_lock(lock))):
            yield None
            return
        try:
            with Session(connection, expire_on_commit=False) as session:
                yield session
        finally:
            connection.scalar(select(func.pg_advisory_unlock(lock)))
