"""An API that was frozen amid its work finds its transactions ended by Postgres: 503, and streams that go on."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from api_kit import PRETRAIN, InProcess
from cutting import idled_out
from fastapi import FastAPI
from sqlalchemy import event

from service.api.app import create_app
from service.settings import Settings

ROOT = "http://barlow/api/v1"
SSE = {"Accept": "text/event-stream"}


@pytest.fixture
def app(database: Settings) -> Any:
    made = create_app(database)
    yield made
    made.state.parts.close()
    made.state.engine.dispose()


@pytest.mark.parametrize("asked", ["GET /jobs", "GET /jobs/JOB", "POST /jobs/JOB:pause", "POST /jobs"])
def test_a_request_that_was_frozen_is_a_503(app: FastAPI, database: Settings, asked: str) -> None:
    url = database.database_url.get_secret_value()
    with httpx.Client(transport=InProcess(app), base_url=ROOT) as client:
        job = client.post("/jobs", json=PRETRAIN).json()["id"]
        method, path = asked.replace("JOB", job).split()
        body = PRETRAIN if asked == "POST /jobs" else None
        with idled_out(app.state.engine, url, after="jobs"):
            frozen = client.request(method, path, json=body)
        assert (frozen.status_code, frozen.json()["type"]) == (503, "/problems/unavailable")
        assert frozen.headers["Retry-After"] == "2"
        again = client.request(method, path, json=body)
        assert again.status_code in (200, 201, 202), "nothing was changed, and the next one is answered"


@pytest.mark.parametrize("after", ["SELECT jobs.state", "FROM events"])
@pytest.mark.parametrize("follow", [True, False])
def test_a_stream_that_was_frozen_goes_on(app: FastAPI, database: Settings, after: str, follow: bool) -> None:
    lost: list[object] = []
    event.listen(app.state.engine, "handle_error", lost.append)

    async def events() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ROOT, timeout=30) as client:
            job = (await client.post("/jobs", json=PRETRAIN)).json()["id"]
            with idled_out(app.state.engine, database.database_url.get_secret_value(), after=after):
                followed = asyncio.create_task(
                    client.get(f"/jobs/{job}/events", params={"follow": follow}, headers=SSE)
                )
                while not lost and not followed.done():
                    await asyncio.sleep(0.01)
            await client.post(f"/jobs/{job}:cancel")
            return (await followed).text

    kinds = [line.removeprefix("event: ") for line in asyncio.run(events()).splitlines() if line.startswith("event: ")]
    assert kinds[0] == "submitted"
    assert kinds[-1] == "end"
    assert lost
    assert not follow or "cancelled" in kinds
