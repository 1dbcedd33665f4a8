"""Requests take turns at the run database, and every turn is given back."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import psycopg
import pytest
from api_kit import PRETRAIN
from sqlalchemy import Connection, event

from service.api import app as api_app
from service.api import deps
from service.settings import Settings


def test_a_request_whose_connection_broke_gives_its_turn_back(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres ends it after the last statement, so that nothing but giving it back tells."""
    monkeypatch.setattr(api_app, "TURNS", 1)
    monkeypatch.setattr(deps, "TURN_SECONDS", 0.5)
    app = api_app.create_app(database)

    def end(connection: Connection, _: Any, statement: str, *__: Any) -> None:
        if "FROM jobs" in statement:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            with psycopg.connect(database.database_url.get_secret_value(), autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 10000)", [driver.info.backend_pid])

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://barlow/api/v1") as client:
            return await client.get(f"/jobs/{uuid.uuid4()}")

    event.listen(app.state.engine, "after_cursor_execute", end)
    assert asyncio.run(ask()).status_code == 503
    event.remove(app.state.engine, "after_cursor_execute", end)
    assert asyncio.run(ask()).status_code == 404
    app.state.parts.close()
    app.state.engine.dispose()


def test_a_row_that_somebody_holds_is_a_503_within_seconds(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_app, "LOCK_SECONDS", 0.2)
    app = api_app.create_app(database)

    async def post(path: str, **given: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://barlow/api/v1") as client:
            return await client.post(path, **given)

    job = asyncio.run(post("/jobs", json=PRETRAIN)).json()["id"]
    with psycopg.connect(database.database_url.get_secret_value()) as other:
        other.execute("SELECT FROM jobs WHERE id = %s FOR NO KEY UPDATE", [job])
        refused = asyncio.run(post(f"/jobs/{job}:pause"))
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/unavailable")
    assert asyncio.run(post(f"/jobs/{job}:pause")).json()["state"] == "paused"
    app.state.parts.close()
    app.state.engine.dispose()


def test_a_scrape_waits_for_its_turn_as_everybody_does(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_app, "TURNS", 1)
    monkeypatch.setattr(deps, "TURN_SECONDS", 0.5)
    app = api_app.create_app(database)

    async def scrape() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://barlow") as client:
            async with app.state.turns:
                waited = await client.get("/metrics")
            return [waited.status_code, (await client.get("/metrics")).status_code]

    assert asyncio.run(scrape()) == [503, 200]
    app.state.parts.close()
    app.state.engine.dispose()
