"""Whether the service can do its work, found by asking its parts; each check ends in time, whatever it asks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from sqlalchemy import Double, cast, func, select
from sqlalchemy.exc import SQLAlchemyError

from service.api.schemas import Check, Readiness
from service.database import migrate
from service.database.engine import close_engine, make_engine, session_factory
from service.database.tables import SchedulerSeen
from service.redis_connections import connection_class
from service.settings import Settings

DATABASE_SECONDS = 2.0
BROKER_SECONDS = 1.0
BROKER_KEPT_SECONDS = 2.0

_ASKED = "redis://", "rediss://", "unix://"
"""What the client of Redis reads. The queue's library, which takes more, reads the others in ways of its own."""
_NOT_ASKED = f"not asked: readiness asks {', '.join(_ASKED)} of BARLOW_REDIS_URL alone, the queue knows of others"

Checks = dict[str, Check]


class Probe:
    """Runs `check` in a thread of its own, one at a time: a part that hangs holds up one thread and no request."""

    def __init__(self, check: Callable[[], Checks], silent: Checks, *, patience: float, kept: float = 0.0) -> None:
        """`silent` is the answer when `check` takes longer than `patience`; an answer stands for `kept` seconds."""
        self._check = check
        self._silent = silent
        self._patience = patience
        self._kept = kept
        self._running: Future[Checks] | None = None
        self._last: tuple[float, Checks] | None = None

    async def ask(self) -> Checks:
        """What the check says now, or said within the last `kept` seconds."""
        if self._last is not None and time.monotonic() - self._last[0] < self._kept:
            return self._last[1]
        if self._running is None or self._running.done():
            self._running = Future()
            # A daemon: a server that stops does not wait for a part that hangs.
            threading.Thread(target=self._run, args=(self._running,), daemon=True).start()
        running = self._running
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(running)), self._patience)
        except TimeoutError:
            return self._silent

    def _run(self, answer: Future[Checks]) -> None:
        try:
            found = self._check()
        except BaseException as error:
            answer.set_exception(error)
        else:
            self._last = (time.monotonic(), found)
            answer.set_result(found)


class Parts:
    """What the service is made of, asked on connections of its own: busy or stuck requests hold up no check."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = make_engine(settings)
        self._database = Probe(
            self._ask_database, _without_database(f"no answer within {DATABASE_SECONDS:g} s"), patience=DATABASE_SECONDS
        )
        self._broker = Probe(
            self._ask_broker,
            {"broker": _broker_away(f"no answer within {BROKER_SECONDS:g} s")},
            patience=BROKER_SECONDS,
            kept=BROKER_KEPT_SECONDS,
        )

    async def readiness(self) -> Readiness:
        """All checks, asked at once."""
        database, broker = await asyncio.gather(self._database.ask(), self._broker.ask())
        checks = database | broker
        return Readiness(ready=all(check.ok for check in checks.values() if check.required), checks=checks)

    def close(self) -> None:
        """Close the connections; a check that still runs closes its own at its end."""
        close_engine(self._engine)

    def _ask_database(self) -> Checks:
        try:
            current, head = migrate.current_and_head(self._engine)
            checks = {"database": Check(ok=True, required=True, detail="reachable")}
            if current != head:
                remedy = f"at {current or 'nothing'}, needs {head}: run python -m service.database upgrade"
                unknown = "not known before the migrations have run"
                return checks | {
                    "migrations": Check(ok=False, required=True, detail=remedy),
                    "scheduler": Check(ok=False, required=True, detail=unknown),
                }
            return checks | {
                "migrations": Check(ok=True, required=True, detail=f"at {head}"),
                "scheduler": self._ask_scheduler(),
            }
        except SQLAlchemyError as error:
            return _without_database(f"not reachable: {type(error).__name__}")

    def _ask_scheduler(self) -> Check:
        ago = cast(func.extract("epoch", func.clock_timestamp() - SchedulerSeen.seen_at), Double)
        with session_factory(self._engine)() as session:
            silent = session.scalar(select(ago))
        if silent is None:
            return Check(ok=False, required=True, detail="never seen: start python -m service.scheduling")
        # A tick may be slow; five missed ones are not a slow tick any more.
        patience = max(10.0, 5 * self._settings.tick_seconds)
        return Check(ok=silent < patience, required=True, detail=f"seen {silent:.1f} s ago")

    def _ask_broker(self) -> Checks:
        url = self._settings.redis_url.get_secret_value()
        if not url.startswith(_ASKED):
            return {"broker": Check(ok=True, required=False, detail=_NOT_ASKED)}
        limits = {"socket_connect_timeout": BROKER_SECONDS, "socket_timeout": BROKER_SECONDS}
        try:
            once = Retry(NoBackoff(), 0)
            # Given for another scheme, it would win over its own: the password would go without TLS.
            plain = url.startswith("redis://")
            kind = {"connection_class": connection_class(same_account=self._settings.same_account)} if plain else {}
            with redis.Redis.from_url(url, retry=once, **kind, **limits) as connection:
                connection.ping()
        except (RedisError, OSError, ValueError) as error:
            return {"broker": _broker_away(f"not reachable: {type(error).__name__}")}
        return {"broker": Check(ok=True, required=False, detail="reachable")}


def _without_database(why: str) -> Checks:
    unknown = Check(ok=False, required=True, detail="not known while the database does not answer")
    return {"database": Check(ok=False, required=True, detail=why), "migrations": unknown, "scheduler": unknown}


def _broker_away(why: str) -> Check:
    slower = "jobs are accepted and started all the same, later by up to BARLOW_POLL_SECONDS"
    return Check(ok=False, required=False, detail=f"{why}; {slower}")
