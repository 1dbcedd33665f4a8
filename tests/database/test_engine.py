"""What a connection to the run database is made of."""

import os
import socket
import sys

import pytest

from service.database.engine import close_engine, make_engine
from service.settings import Settings


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
def test_a_statement_that_nobody_acknowledges_fails_within_half_a_minute(database: Settings) -> None:
    engine = make_engine(database)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with socket.socket(fileno=os.dup(driver.fileno())) as ours:
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    engine.dispose()


def test_a_connection_that_is_given_back_after_the_end_is_closed(database: Settings) -> None:
    """As by a thread that the API's shutdown does not wait for; also one that it opens then."""
    engine = make_engine(database)
    with engine.connect() as before:
        drivers = [before.connection.driver_connection]
        close_engine(engine)
        with engine.connect() as after:
            drivers.append(after.connection.driver_connection)
    assert [driver.closed for driver in drivers if driver is not None] == [True, True]
