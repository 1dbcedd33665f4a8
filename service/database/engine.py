"""The connection to the run database: made once per process, passed on, never a global."""

from __future__ import annotations

from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from service import shell_environment
from service.settings import Settings


def make_engine(settings: Settings, *, lock_seconds: float | None = None) -> Engine:
    """An engine with a small pool. A connection that died in the pool is replaced before it is used.

    `lock_seconds`: a statement that waits longer for a row that somebody else holds fails; None: it waits on.
    """
    shell_environment.disown(*shell_environment.DATABASE)
    # A process that is frozen in the middle of a transaction gives its row locks back.
    options = "-c timezone=UTC -c idle_in_transaction_session_timeout=20s"
    if lock_seconds is not None:
        options += f" -c lock_timeout={round(1000 * lock_seconds)}ms"
    return create_engine(
        settings.sqlalchemy_url,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=10,
        pool_timeout=10,
        connect_args={
            "connect_timeout": 5,  # seconds
            # A peer that vanished is noticed within 30 s, not after the kernel's two hours.
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            # Keepalives are silent while a statement that was sent waits for its acknowledgement.
            "tcp_user_timeout": 30_000,  # milliseconds
            "options": options,
        },
    )


def close_engine(engine: Engine) -> None:
    """Close every connection: those in the pool now, others when whoever uses them gives them back.

    `dispose` alone knows the first: a thread that nobody waits for, such as a check of readiness that hangs, gives its
    own back to a pool that is gone, where it is open until it is collected.
    """
    event.listen(engine.pool, "checkin", _close_returned)  # which pools that are made from this one take over
    engine.dispose()


def _close_returned(_: Any, record: ConnectionPoolEntry) -> None:
    record.invalidate()


def connect(url: str, **options: Any) -> psycopg.Connection[Any]:
    """One connection of psycopg's own to the database at `url`; what the URL does not say is libpq's default.

    Raises:
        psycopg.OperationalError: nobody answers there, or not to this user.
    """
    shell_environment.disown(*shell_environment.DATABASE)
    return psycopg.connect(url, **options)


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)
