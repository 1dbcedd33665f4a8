"""kill -9 of the API between any two statements of a submit: all of it or nothing, and a second try makes it once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from cutting import cut
from sqlalchemy import Engine, func, select

from service.api.app import create_app
from service.database.tables import Event, Experiment, IdempotencyKey, Job
from service.settings import Settings

SPEC = {"kind": "pretrain", "data": "digits", "backbone": {"name": "tiny"}, "batch_size": 64}
EVALUATION = {"kind": "knn", "data": "digits", "backbone_from": {"job": "pretrain"}}


def body_of(route: str, number: int) -> dict[str, Any]:
    if route == "experiments":
        return {"name": f"pipeline-{number}", "jobs": {"pretrain": SPEC, "knn": EVALUATION}}
    return {**SPEC, "name": f"job-{number}"}


async def post(app: Any, route: str, number: int) -> httpx.Response:
    headers = {"Idempotency-Key": f"{route}-{number}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://barlow/api/v1") as client:
        return await client.post(f"/{route}", json=body_of(route, number), headers=headers)


def rows(engine: Engine) -> list[int]:
    """How many there are of all that a submit makes."""
    with engine.connect() as connection:
        counts = [select(func.count()).select_from(table) for table in (Experiment, Job, Event, IdempotencyKey)]
        return [connection.execute(count).scalar_one() for count in counts]


@pytest.mark.parametrize(("route", "jobs"), [("jobs", 1), ("experiments", 2)])
def test_a_submit_that_is_cut_anywhere_is_made_once_by_the_same_request(
    database: Settings, engine: Engine, route: str, jobs: int
) -> None:
    app = create_app(database)
    url = database.database_url.get_secret_value()

    def submit(number: int) -> httpx.Response:
        return asyncio.run(post(app, route, number))

    first = submit(0)
    assert first.status_code == 201, first.text
    with cut(app.state.engine, url) as counted:
        assert submit(1).status_code == 201
    assert counted.sent > 10
    for number in range(1, counted.sent + 1):
        before = rows(engine)
        with cut(app.state.engine, url, before=number):
            assert submit(1 + number).status_code >= 500
        assert rows(engine) == before, f"cut before statement {number}"
        again = submit(1 + number)
        assert again.status_code == 201, again.text
        assert "Idempotency-Replayed" not in again.headers
        made = rows(engine)
        assert made[1:] == [before[1] + jobs, before[2] + jobs, before[3] + 1]
        replayed = submit(1 + number)
        assert replayed.headers["Idempotency-Replayed"] == "true"
        assert replayed.headers["Location"] == again.headers["Location"]
        assert rows(engine) == made
    app.state.parts.close()
    app.state.engine.dispose()
