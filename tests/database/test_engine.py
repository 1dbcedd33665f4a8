"""What a connection to the run database is made of."""

import os
import socket
import sys

import pytest

from service.database.engine import make_engine
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
