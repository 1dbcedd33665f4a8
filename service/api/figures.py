"""What Prometheus reads: jobs and slots from the rows at each scrape, requests as they are answered."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.database.tables import Job, Slot
from service.ledger.states import JobState

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Figures:
    """The figures of one app; none is global, so that two apps can live in one process."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Rows(sessions))
        self.requests = Histogram(
            "barlow_http_request_seconds",
            "From a request's arrival to the first byte of its answer",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.refused_tokens = Counter(
            "barlow_refused_tokens",
            "Tokens that were refused, by why: unknown, revoked, expired, malformed; slowed: not even looked at",
            ["why"],
            registry=self.registry,
        )


class _Rows(Collector):
    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing in advance: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Count jobs by state and slots by what they do."""
        use = case((Slot.quarantined_at.is_not(None), "quarantined"), (Slot.attempt_id.is_(None), "free"), else_="used")
        with self._sessions() as session:
            jobs = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
            counted = select(use, func.count()).where(Slot.retired_at.is_(None)).group_by(use)
            slots: dict[str, int] = dict(session.execute(counted).all())
        by_state = GaugeMetricFamily("barlow_jobs", "Jobs by state", labels=["state"])
        for state in JobState:
            by_state.add_metric([state], jobs.get(state, 0))
        yield by_state
        by_use = GaugeMetricFamily("barlow_slots", "Slots by use", labels=["use"])
        for name in ("free", "used", "quarantined"):
            by_use.add_metric([name], slots.get(name, 0))
        yield by_use


class MeasureRequests:
    """ASGI middleware: one observation per request, named by the route's template, never by its raw path."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self.app = app
        self.figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                # A client may make up methods, and each would stay here for ever.
                method = scope["method"] if scope["method"] in _METHODS else "other"
                labels = (method, route, str(message["status"]))
                self.figures.requests.labels(*labels).observe(time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, observed)
