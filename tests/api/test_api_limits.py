"""What one caller sends holds nobody else up: bodies are read before a session is taken, at a bounded cost."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from api_kit import PRETRAIN, faults_of
from fastapi import FastAPI
from sqlalchemy import Engine, event

from barlow_lab import spelling
from barlow_lab.specs.files import MAX_VALUES
from barlow_lab.specs.parsing import MAX_FAULTS
from service.admission import reading
from service.api import app as api_app
from service.api import deps, lanes
from service.api.bodies import parse_json
from service.settings import Settings

Ask = Callable[[httpx.AsyncClient, FastAPI], Awaitable[None]]


@pytest.fixture
def with_app(database: Settings) -> Iterator[Callable[[Ask], None]]:
    """Runs a coroutine with a client of an app, all on one event loop."""

    def run(ask: Ask) -> None:
        async def talk() -> None:
            app = api_app.create_app(database)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://barlow/api/v1") as client:
                await ask(client, app)
            app.state.parts.close()
            app.state.engine.dispose()

        asyncio.run(talk())

    return run


def sweep(jobs: int, **fields: Any) -> dict[str, Any]:
    return {"name": "sweep", "jobs": {f"job-{i}": {**PRETRAIN, **fields} for i in range(jobs)}}


@pytest.mark.parametrize("bad", [{"unknown": 1}, {"run": {"after": ["nobody"]}, "epochs": 0}])
def test_a_bad_body_is_refused_while_no_session_is_free(
    with_app: Callable[[Ask], None], monkeypatch: pytest.MonkeyPatch, bad: dict[str, Any]
) -> None:
    monkeypatch.setattr(deps, "TURN_SECONDS", 0.2)

    async def ask(client: httpx.AsyncClient, app: FastAPI) -> None:
        for _ in range(deps.TURNS):
            await app.state.turns.acquire()
        assert (await client.get("/jobs")).status_code == 503
        assert (await client.post("/jobs", json={**PRETRAIN, **bad})).status_code == 422
        assert (await client.post("/experiments", json=sweep(3, **bad))).status_code == 422
        assert (await client.post("/jobs", json=PRETRAIN)).status_code == 503, "a good one needs a session"

    with_app(ask)


def test_lists_are_answered_while_bodies_are_read(
    with_app: Callable[[Ask], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One body is read at a time, and those that wait for it take neither the threads nor the turns of others."""
    now, most, go_on = [0], [0], threading.Event()
    plain = reading.read_job

    def read(body: Any) -> reading.JobBody:
        now[0] += 1
        most[0] = max(most[0], now[0])
        assert go_on.wait(60)
        now[0] -= 1
        return plain(body)

    monkeypatch.setattr(lanes, "read_job", read)

    async def ask(client: httpx.AsyncClient, app: FastAPI) -> None:
        posts = [asyncio.ensure_future(client.post("/jobs", json=PRETRAIN)) for _ in range(60)]
        while not now[0]:
            await asyncio.sleep(0.01)
        assert {(await client.get("/jobs")).status_code for _ in range(5)} == {200}
        assert not any(post.done() for post in posts)
        go_on.set()
        assert {answer.status_code for answer in await asyncio.gather(*posts)} == {201}

    with_app(ask)
    assert most == [1]


def test_submissions_leave_turns_to_those_who_look(
    with_app: Callable[[Ask], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever submits holds AT_ONCE turns at most, and all who submit less than there are."""
    monkeypatch.setattr(deps, "TURN_SECONDS", 60.0)
    assert lanes.AT_ONCE < lanes.AT_ONCE_IN_ALL < deps.TURNS

    async def ask(client: httpx.AsyncClient, app: FastAPI) -> None:
        every: lanes.Lanes = app.state.lanes
        with every.enter("ana") as ana, every.enter("ben") as ben, every.enter("eve") as eve:
            held = [every.turn(ana) for _ in range(lanes.AT_ONCE)] + [every.turn(ben) for _ in range(lanes.AT_ONCE)]
            for turn in held:
                await turn.__aenter__()
            assert ana.turns.locked(), "a further one of hers waits"
            waits = asyncio.ensure_future(every.turn(eve).__aenter__())
            await asyncio.sleep(0)
            assert not waits.done(), "all who submit together have their turns"
            assert (await client.get("/jobs")).status_code == 200
            await held.pop().__aexit__(None, None, None)
            await waits

    with_app(ask)


def test_streams_that_begin_at_once_leave_turns_to_those_who_look(with_app: Callable[[Ask], None]) -> None:
    assert deps.OPENINGS < deps.TURNS

    async def ask(client: httpx.AsyncClient, app: FastAPI) -> None:
        job = (await client.post("/jobs", json=PRETRAIN)).json()["id"]
        for _ in range(deps.OPENINGS):
            await app.state.openings.acquire()
        stream = {"params": {"follow": "false"}, "headers": {"accept": "text/event-stream"}}
        begin = [
            asyncio.ensure_future(client.get(f"/jobs/{job}/{what}", **stream))
            for what in ("events", "logs")
            for _ in range(deps.TURNS)
        ]
        assert (await client.get("/jobs")).status_code == 200
        assert (await client.get(f"/jobs/{job}/events")).status_code == 200, "a page is no stream"
        assert not any(one.done() for one in begin)
        for _ in range(deps.OPENINGS):
            app.state.openings.release()
        assert {answer.status_code for answer in await asyncio.gather(*begin)} == {200}

    with_app(ask)


def test_a_page_waits_for_its_turn_and_takes_none_of_those_at_the_database(
    with_app: Callable[[Ask], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deps.PAGES < deps.TURNS
    monkeypatch.setattr(deps, "TURN_SECONDS", 0.01)

    async def ask(client: httpx.AsyncClient, app: FastAPI) -> None:
        for _ in range(deps.PAGES):
            await app.state.pages.acquire()
        refused = await client.get("/compare.html", params={"experiment": "none"})
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too-many-requests")
        assert refused.headers["Retry-After"] == "10"
        app.state.pages.release()
        assert (await client.get("/compare.html", params={"experiment": "none"})).status_code == 404

    with_app(ask)


def test_a_full_lane_is_told_and_is_free_again(
    with_app: Callable[[Ask], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "WAITING", 1)

    async def ask(client: httpx.AsyncClient, app: FastAPI) -> None:
        with app.state.lanes.enter("anonymous"):
            refused = await client.post("/jobs", json=PRETRAIN)
            assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too-many-requests")
            assert "1 submissions of anonymous wait already" in refused.json()["detail"]
            assert refused.headers["Retry-After"] == "2"
        assert (await client.post("/jobs", json={**PRETRAIN, "epochs": 0})).status_code == 422
        assert (await client.post("/jobs", json=PRETRAIN)).status_code == 201

    with_app(ask)


def test_of_hundreds_of_unknown_names_few_are_compared_and_a_hundred_told(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []
    plain = spelling.difflib.get_close_matches

    def count(word: str, *rest: Any, **how: Any) -> list[str]:
        words.append(word)
        return plain(word, *rest, **how)

    monkeypatch.setattr(spelling.difflib, "get_close_matches", count)
    body = sweep(20, run={"after": [f"jbo-{i}" for i in range(30)]})
    refused = api.post("/experiments", json=body)
    assert len(words) <= spelling.COMPARED
    faults = faults_of(refused)
    assert len(faults) == MAX_FAULTS
    assert "did you mean 'job-0'?" in faults["/jobs/job-0/run/after/0"]
    assert refused.json()["errors_left_out"] == 600 - MAX_FAULTS
    assert refused.json()["detail"].endswith("and 500 more: mend these first")


def test_the_names_of_a_submission_are_read_at_once(api: httpx.Client, database: Settings) -> None:
    """As many statements for sixty names as for one."""

    def statements(names: int) -> int:
        app = api_app.create_app(database)
        engine: Engine = app.state.engine
        seen: list[str] = []
        event.listen(engine, "after_cursor_execute", lambda *a: seen.append(a[2]))

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://barlow/api/v1") as client:
                after = [f"nobody-{i}" for i in range(names)]
                return await client.post("/jobs?experiment=here", json={**PRETRAIN, "run": {"after": after}})

        assert len(faults_of(asyncio.run(ask()))) == names
        app.state.parts.close()
        engine.dispose()
        return len(seen)

    api.post("/jobs?experiment=here", json=PRETRAIN)
    assert statements(60) == statements(1)


@pytest.mark.parametrize(
    ("settings", "body", "said"),
    [
        ({"max_experiment_jobs": 3}, sweep(4), "BARLOW_MAX_EXPERIMENT_JOBS"),
        ({}, sweep(60, run={"after": [f"job-{i}" for i in range(100)]}), "up to 5,000; name only"),
    ],
)
def test_jobs_and_references_of_one_body_are_bounded(
    database: Settings, in_process: Callable[..., Any], settings: dict[str, Any], body: Any, said: str
) -> None:
    with in_process(database.model_copy(update=settings)) as client:
        assert said in faults_of(client.post("/experiments", json=body))["/jobs"]
        assert client.get("/jobs").json()["items"] == []


def test_the_values_of_a_body_are_bounded(api: httpx.Client) -> None:
    many = {**PRETRAIN, "run": {"after": [0] * MAX_VALUES}}
    assert "over 50,000 values" in faults_of(api.post("/jobs", json=many))[""]


def test_many_values_below_a_long_name_take_no_more_memory_than_the_body() -> None:
    body = b'{"' + b"x" * 400_000 + b'": [' + b"1," * 40_000 + b'"\\u0000"]}'
    tracemalloc.start()
    with pytest.raises(Exception, match="NUL"):
        parse_json(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 * len(body)


def test_faults_of_many_jobs_with_long_names_make_no_long_answer(api: httpx.Client) -> None:
    body = {"name": "long", "jobs": {"n" * 40_000 + str(i): {"kind": "knn", "data": 1} for i in range(10)}}
    refused = api.post("/experiments", json=body)
    assert refused.status_code == 422
    assert len(refused.content) < 50_000
