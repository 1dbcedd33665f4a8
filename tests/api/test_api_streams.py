"""Streams: one look for all who follow, whoever is late or slow; their limits; and the end of a token's streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, PRETRAIN, bearer, guarded
from fastapi import FastAPI
from following import following
from sqlalchemy import event, insert, update
from sqlalchemy.orm import Session

from service.api import feeds, hub, streams
from service.api.app import create_app
from service.database.tables import Event, Job, Token
from service.settings import Settings

Ask = Callable[[FastAPI, httpx.AsyncClient, Any], Awaitable[None]]


def run(settings: Settings, ask: Ask) -> None:
    """Run a coroutine with an app, a client and `follow`, all on one event loop; nothing of the hub is left."""

    async def talk() -> None:
        app = create_app(settings)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost/api/v1") as client:
            if settings.admin_token is not None:
                client.headers.update(bearer(ADMIN))
            async with following(app) as follow:
                await ask(app, client, follow)
        assert app.state.hub.streams == 0
        while any(task.get_name() == "followers" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.005)
        app.state.parts.close()
        app.state.engine.dispose()

    asyncio.run(talk())


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LOOK_SECONDS", 0.02)


def statements(app: FastAPI) -> list[str]:
    """What the app asks the run database from now on."""
    seen: list[str] = []
    event.listen(app.state.engine, "after_cursor_execute", lambda *given: seen.append(given[2]))
    return seen


async def grown(seen: list[str], looks: int) -> list[str]:
    """The statements of the next looks, as many as wanted."""
    start = len(seen)
    while sum("SELECT jobs.state" in said for said in seen[start:]) < looks:
        await asyncio.sleep(0.005)
    return seen[start:]


async def new_job(client: httpx.AsyncClient) -> str:
    return str((await client.post("/jobs", json=PRETRAIN)).json()["id"])


def test_a_look_is_one_statement_for_all_followers_of_all_jobs(database: Settings) -> None:
    async def ask(app: FastAPI, client: httpx.AsyncClient, follow: Any) -> None:
        jobs = [await new_job(client) for _ in range(3)]
        followers = [follow(f"/jobs/{job}/{kind}") for job in jobs for kind in ("events", "logs") for _ in range(15)]
        for follower in followers[::30]:
            await follower.has("event: submitted")
        while app.state.hub.streams < len(followers):
            await asyncio.sleep(0.005)
        seen = statements(app)
        await grown(seen, 3)
        assert {said.split(" \n")[0][:18] for said in await grown(seen, 10)} == {"SELECT jobs.state,"}

        seen.clear()
        await client.post(f"/jobs/{jobs[0]}:cancel")
        for follower in followers[:30]:
            await follower.ended()
            assert follower.kinds[-1] == "end"
        assert all(follower.kinds == ["submitted", "cancelled", "end"] for follower in followers[:15])
        # Of the one job that has changed: what is new, and then that there is no more.
        assert sum("FROM events" in said for said in seen) <= 2

    run(database, ask)


def test_whoever_is_late_reads_what_is_older_and_joins(
    database: Settings, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BATCH", 50)
    monkeypatch.setattr(feeds, "BACKLOG_BYTES", 20_000)

    def add(job: str, first: int, last: int) -> None:
        rows = [
            {"job_id": job, "seq": seq, "kind": "noted", "actor": "test", "payload": {}} for seq in range(first, last)
        ]
        session.execute(insert(Event), rows)
        session.execute(update(Job).where(Job.id == job).values(event_seq=last - 1))
        session.commit()

    async def ask(app: FastAPI, client: httpx.AsyncClient, follow: Any) -> None:
        job = await new_job(client)
        add(job, 2, 601)
        starts = {0: follow(f"/jobs/{job}/events"), 7: follow(f"/jobs/{job}/events", {"Last-Event-ID": "7"})}
        for follower in starts.values():
            await follower.has("id: 600\n")
        for start in (0, 123, 577, 600):
            starts[start] = follow(f"/jobs/{job}/events", {"Last-Event-ID": str(start)})
        beyond = follow(f"/jobs/{job}/events", {"Last-Event-ID": "5000"})
        add(job, 601, 700)
        await client.post(f"/jobs/{job}:cancel")
        for start, follower in starts.items():
            await follower.ended()
            assert follower.ids == [*map(str, range(start + 1, 701)), "700"], "each once, in order, then the end"
        await beyond.ended()
        assert (beyond.kinds, beyond.ids) == (["end"], ["5000"])

    run(database, ask)


def test_a_slow_client_costs_no_memory_and_misses_nothing(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "BACKLOG_BYTES", 10_000)
    monkeypatch.setattr(streams, "LOG_PIECE", 2_000)

    async def ask(app: FastAPI, client: httpx.AsyncClient, follow: Any) -> None:
        job = await new_job(client)
        folder = database.runs_dir / job / "attempts" / "0001"
        folder.mkdir(parents=True)
        slow, quick = follow(f"/jobs/{job}/logs"), follow(f"/jobs/{job}/logs")
        await slow.has(": follows")
        slow.takes.clear()
        lines = [f"[0] line {i:05}" for i in range(5_000)]
        with (folder / "trainer.log").open("w") as file:
            file.write("\n".join(lines) + "\n")
        await quick.has(lines[-1])
        [feed] = app.state.hub._feeds.values()
        assert feed.size <= 10_000 + 3_000
        assert lines[-1] not in slow.text
        slow.takes.set()
        await slow.has(lines[-1])
        late = follow(f"/jobs/{job}/logs", {"Last-Event-ID": str(17 * 16 + 5)})
        await late.has(lines[-1])
        said = ["".join(f"{line.removeprefix('data: ')}\n" for line in follower.text.splitlines()
                        if line.startswith("data: ")) for follower in (slow, quick, late)]  # fmt: skip
        whole = "\n".join(lines) + "\n"
        assert said == [whole, whole, whole[17 * 16 + 5 :]]

    run(database, ask)


def test_streams_are_bounded_by_token_and_in_all(database: Settings) -> None:
    few = guarded(database).model_copy(update={"max_streams": 4, "max_streams_per_token": 3})

    async def ask(app: FastAPI, client: httpx.AsyncClient, follow: Any) -> None:
        job = await new_job(client)
        made = (await client.post("/tokens", json={"name": "ana", "role": "reader"})).json()
        ana, admin = bearer(made["secret"]), bearer(ADMIN)
        hers = [follow(f"/jobs/{job}/{kind}", ana) for kind in ("events", "logs", "logs")]
        for stream in hers:
            await stream.has(": follows")
        refused = follow(f"/jobs/{job}/events", ana)
        await refused.ended()
        problem = json.loads(refused.text)
        assert (refused.status, problem["type"]) == (429, "/problems/too-many-requests")
        assert "3 streams of the token ana are open" in problem["detail"]
        assert "BARLOW_MAX_STREAMS_PER_TOKEN" in problem["detail"]
        await follow(f"/jobs/{job}/events", admin).has("submitted")
        full = follow(f"/jobs/{job}/events?follow=false", admin)
        await full.ended()
        assert (full.status, "(BARLOW_MAX_STREAMS of the API)" in full.text) == (429, True)
        await hers[0].leave()
        await follow(f"/jobs/{job}/events", ana).has("submitted")

    run(few, ask)


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_the_streams_of_a_token_that_counts_no_more_end_and_say_why(
    database: Settings, session: Session, how: str
) -> None:
    async def ask(app: FastAPI, client: httpx.AsyncClient, follow: Any) -> None:
        job = await new_job(client)
        secrets = {}
        for name in ("ana", "ben", "eve"):
            made = await client.post("/tokens", json={"name": name, "role": "reader", "expires_in": "90d"})
            secrets[name] = bearer(made.json()["secret"])
        hers = [follow(f"/jobs/{job}/{kind}", secrets["ana"]) for kind in ("events", "logs") for _ in range(3)]
        others = [follow(f"/jobs/{job}/events", secrets[name]) for name in ("ben", "eve")]
        for stream in (*hers, *others):
            await stream.has(": follows")
        seen = statements(app)
        checked = [said for said in await grown(seen, 4 * hub.ROUNDS_PER_CHECK) if "FROM tokens" in said]
        assert 3 <= len(checked) <= 5, "one question for all streams, every few looks"
        if how == "revoked":
            await client.delete("/tokens/ana")
        else:
            session.execute(update(Token).where(Token.name == "ana").values(expires_at=Token.created_at))
            session.commit()
        for stream in hers:
            await stream.ended()
            said = json.loads(stream.text.rpartition("data: ")[2].splitlines()[0])
            assert (stream.kinds[-1], said["reason"], said["state"]) == ("end", "unauthorized", None)
            assert said["detail"].startswith(f"the token ana {'was revoked' if how == 'revoked' else 'expired'} at")
        again = follow(f"/jobs/{job}/events", secrets["ana"])
        await again.ended()
        assert again.status == 401
        await client.post(f"/jobs/{job}:cancel")
        for stream in others:
            await stream.ended()
            assert stream.kinds == ["submitted", "cancelled", "end"]

    run(guarded(database), ask)
