"""`python -m service.scheduling`: the scheduler. A second one stands by until the first one is gone.

The advisory lock and the tick share one connection: a scheduler that has lost the lock can change nothing. It then
exits with a failure and is started again by whoever supervises it.
"""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts it first: no queue.py or random.py of whatever folder this is started in

import logging
import signal
import threading
import time
import uuid

import psycopg
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from barlow_lab.commands import keep_own_rights
from barlow_lab.standard_streams import ready_streams
from service import logs, shell_environment
from service.broker import make_celery, send_wake
from service.completion import Completion
from service.database.engine import make_engine
from service.ledger.events import SCHEDULER_CHANNEL
from service.scheduling.tick import placed, tick
from service.scheduling.waker import Waker
from service.settings import Settings, read_settings

SCHEDULER_LOCK = 0x6261726C_6F770002
"""Any fixed number: the advisory lock of the one scheduler."""
STANDBY_SECONDS = 1.0
IDLE_SECONDS = 10
"""The server ends a session that is idle for so long: a frozen scheduler loses the lock."""

logger = logging.getLogger("service.scheduling")


def main() -> int:
    """Exit code 0 after SIGTERM or SIGINT, 1 when the database or the lock is lost."""
    ready_streams()
    keep_own_rights()
    logs.to_stderr("%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    shell_environment.disown_all()
    settings = read_settings()
    engine = make_engine(settings)
    try:
        with engine.connect() as connection:
            try:
                run(connection, settings, stop)
            except (DBAPIError, psycopg.Error):
                connection.invalidate()  # there is nothing left to roll back, and the attempt would be a traceback
                raise
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        logger.error("the database connection, and with it the lock, is lost: %s", " ".join(str(cause).split()))
        return 1
    finally:
        engine.dispose()
    logger.info("stopped")
    return 0


def run(connection: Connection, settings: Settings, stop: threading.Event) -> None:
    """Stand by for the lock, then tick until `stop` is set.

    Raises:
        sqlalchemy.exc.DBAPIError, psycopg.Error: the connection is lost (the second while it waits).
    """
    connection.execute(text(f"SET idle_session_timeout = '{IDLE_SECONDS}s'"))
    connection.execute(text(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'"))
    connection.commit()
    if not _take_lock(connection, stop):
        return
    app = make_celery(settings)
    waker = Waker(lambda node, attempt_id: send_wake(app, node, attempt_id))
    connection.execute(text(f"LISTEN {SCHEDULER_CHANNEL}"))
    connection.commit()
    instance = uuid.uuid4()
    held_since = time.monotonic()
    complete = Completion(settings.runs_dir, backoff_seconds=settings.retry_backoff_seconds)
    while not stop.is_set():
        with Session(connection, expire_on_commit=False) as session:
            more = tick(
                session,
                instance=instance,
                lease_seconds=settings.lease_seconds,
                # Workers that could not renew while nobody was here get one lease to be heard.
                may_reap=time.monotonic() - held_since >= settings.lease_seconds,
                complete=complete,
                reserve_after_seconds=settings.reserve_after_seconds,
            )
            waker.offer(placed(session))
        if not more:
            _wait(connection, min(settings.tick_seconds, IDLE_SECONDS / 2))


def _take_lock(connection: Connection, stop: threading.Event) -> bool:
    said = False
    while not stop.is_set():
        taken = connection.scalar(select(func.pg_try_advisory_lock(SCHEDULER_LOCK)))
        connection.commit()
        if taken:
            logger.info("has the lock, schedules now")
            return True
        if not said:
            logger.info("another scheduler holds the lock, stands by")
            said = True
        stop.wait(STANDBY_SECONDS)
    return False


def _wait(connection: Connection, seconds: float) -> None:
    """Wait until something is announced, at most `seconds`."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    for _ in driver.notifies(timeout=seconds, stop_after=1):
        pass


if __name__ == "__main__":
    sys.exit(main())
