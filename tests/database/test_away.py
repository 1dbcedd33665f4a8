"""What a run database that is away looks like to SQLAlchemy, made by a real one; and what is an error of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest
from cutting import idled_out
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, InternalError, SQLAlchemyError

from service.database.away import is_away
from service.database.engine import make_engine
from service.settings import Settings


@pytest.fixture
def engine(database: Settings) -> Iterator[Engine]:
    made = make_engine(database, lock_seconds=0.1)
    yield made
    made.dispose()


def said_to(engine: Engine, *statements: str, between: Callable[[int], None] = lambda pid: None) -> SQLAlchemyError:
    """The error of the last of the statements, sent on one connection; `between`: what happens before the last."""
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        for statement in statements[:-1]:
            with suppress(DBAPIError):
                connection.execute(text(statement))
        between(pid)
        with pytest.raises(SQLAlchemyError) as caught:
            connection.execute(text(statements[-1]))
        return caught.value


def test_a_transaction_that_idled_out_is_away(engine: Engine, database: Settings) -> None:
    """An internal error by its class; or an operational one, where the end of the connection overtakes its words."""
    with idled_out(engine, database.database_url.get_secret_value(), after="SELECT 1"):
        error = said_to(engine, "SELECT 1", "SELECT 2")
    assert is_away(error)


def test_a_session_that_was_ended_is_away(engine: Engine, database: Settings) -> None:
    def end(pid: int) -> None:
        with psycopg.connect(database.database_url.get_secret_value(), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    assert is_away(said_to(engine, "SELECT 1", between=end))


def test_a_transaction_that_took_too_long_is_away(engine: Engine) -> None:
    assert is_away(said_to(engine, "SET LOCAL transaction_timeout = '10ms'", "SELECT pg_sleep(60)"))


def test_a_server_that_is_not_there_is_away() -> None:
    nowhere = make_engine(Settings(database_url="postgresql://u@127.0.0.1:1/x"))
    with pytest.raises(SQLAlchemyError) as caught, nowhere.connect():
        pass
    assert is_away(caught.value)


@pytest.mark.parametrize(
    "statement", ["SELECT nonsense", "SELECT 1 / 0", "SELECT 'x'::int", "INSERT INTO nodes DEFAULT VALUES"]
)
def test_an_error_of_ours_is_not(engine: Engine, statement: str) -> None:
    assert not is_away(said_to(engine, statement))


def test_what_comes_after_an_error_of_ours_is_not_either(engine: Engine) -> None:
    """By its class an internal error, too; but the transaction is only spoilt, and the session stands."""
    error = said_to(engine, "SELECT 1 / 0", "SELECT 1")
    assert isinstance(error, InternalError)
    assert not is_away(error)
