"""One step of a tick, which never waits long for anybody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

LOCK_MILLISECONDS = 100
"""So long a step waits for a row. Its holder may be frozen; the server ends its session only after 20 s."""

logger = logging.getLogger("service.scheduling")


@contextmanager
def step(session: Session, what: str) -> Iterator[None]:
    """A transaction of its own. When somebody else holds a row it needs, it is undone and left for the next tick.

    So it is after a fault in our own code: one job that cannot be handled must not hold up all others.

    Raises:
        sqlalchemy.exc.DBAPIError: of anything else, such as a connection that is lost, and the lock with it.
    """
    try:
        session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'"))
        yield
        session.commit()
    except OperationalError as error:
        session.rollback()
        if not isinstance(error.orig, LockNotAvailable):
            raise
        logger.info("%s: somebody holds a row of it, the next tick tries again", what)
    except DBAPIError:
        raise
    except Exception:
        session.rollback()
        logger.exception("%s: the next tick tries again", what)
