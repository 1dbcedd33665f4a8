"""Whether the run database is away: the one place that tells its absence from an error of ours."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_SAID_SO = (OperationalError, InterfaceError, PoolTimeoutError)


def is_away(error: BaseException) -> bool:
    """Whether asking again helps: no connection, none free, a row held for too long, one of two transactions given up.

    A server that ended our session calls that by other names too: an idle transaction's end, as after this process was
    frozen, is an internal error to it. Such an error is known by the connection, which is of no more use.
    """
    return isinstance(error, _SAID_SO) or (isinstance(error, DBAPIError) and error.connection_invalidated)
