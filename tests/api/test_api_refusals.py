"""Refused tokens: a line and a count each, and an address that goes on sending them waits; nobody else for long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

import httpx
import pytest
from api_kit import ADMIN, InProcess, bearer, guarded
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from service.api.app import create_app
from service.api.auth import GOOD_SECONDS
from service.api.refusals import BURST, MOST, Refusals
from service.settings import Settings

UNKNOWN = "barlow_" + 43 * "x"


class Clock:
    """Stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(database: Settings, clock: Clock) -> Iterator[FastAPI]:
    made = create_app(guarded(database))
    made.state.guard.refusals = Refusals(clock)
    yield made
    made.state.parts.close()
    made.state.engine.dispose()


@pytest.fixture
def ask(app: FastAPI) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(transport=InProcess(app), base_url="http://barlow/api/v1") as client:
        yield lambda token, path="/whoami", **options: client.request(
            options.pop("method", "GET"), path, headers=bearer(token), **options
        )


def test_after_so_many_an_address_waits_a_second_for_each(clock: Clock) -> None:
    kept = Refusals(clock)
    assert [kept.take("10.0.0.1") for _ in range(BURST)] == [0.0] * BURST
    assert kept.take("10.0.0.1") == pytest.approx(1.0)
    assert kept.take("10.0.0.2") == 0.0
    clock.now += 1.0
    assert kept.take("10.0.0.1") == 0.0
    assert kept.take("10.0.0.1") == pytest.approx(1.0)
    clock.now += 1000.0
    assert [kept.take("10.0.0.1") for _ in range(BURST + 1)] == [*([0.0] * BURST), 1.0]


def test_what_is_given_back_was_not_taken(clock: Clock) -> None:
    kept = Refusals(clock)
    for _ in range(2 * BURST):
        assert kept.take("10.0.0.1") == 0.0
        kept.give_back("10.0.0.1")
    kept.give_back("10.0.0.2")
    assert [kept.take("10.0.0.2") for _ in range(BURST + 1)] == [*([0.0] * BURST), 1.0]


def test_a_machine_has_one_bucket_of_ipv6_and_memory_has_an_end(clock: Clock) -> None:
    kept = Refusals(clock)
    for n in range(BURST):
        assert kept.take(f"2001:db8::{n:x}") == 0.0
    assert kept.take("2001:db8::ffff:1") > 0.0
    assert kept.take("2001:db8:0:1::1") == 0.0
    for n in range(2 * MOST):
        kept.take(f"host-{n}")
    assert len(kept._spent) == MOST


def test_a_refused_token_is_a_line_and_a_count_and_nothing_of_it_is_written(
    ask: Callable[..., httpx.Response], caplog: pytest.LogCaptureFixture, session: Session
) -> None:
    made = ask(ADMIN, "/tokens", method="POST", json={"name": "alice-1", "user": "alice", "role": "reader"})
    secret = made.json()["secret"]
    caplog.set_level(logging.WARNING)
    forged = "x\x1b[31m; refused a token from 10.0.0.9: unknown"
    for token in (UNKNOWN, "short", forged):
        assert ask(token).status_code == 401
    session.execute(text("UPDATE tokens SET expires_at = now()"))
    session.commit()
    assert ask(secret).status_code == 401
    ask(ADMIN, "/tokens/alice-1", method="DELETE")
    assert ask(secret).status_code == 401
    lines = [record.getMessage() for record in caplog.records if record.name == "service.api.auth"]
    assert lines == [
        *(["refused a token from 127.0.0.1: unknown"] * 3),
        "refused a token from 127.0.0.1: expired alice-1",
        "refused a token from 127.0.0.1: revoked alice-1",
    ]
    figures = ask(ADMIN, "http://barlow/metrics").text
    for why, count in (("unknown", 3), ("expired", 1), ("revoked", 1)):
        assert f'barlow_refused_tokens_total{{why="{why}"}} {count}.0' in figures


def test_an_address_that_goes_on_is_told_to_wait_and_good_tokens_of_it_are_let_in(
    ask: Callable[..., httpx.Response], app: FastAPI, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def make(name: str) -> str:
        return str(ask(ADMIN, "/tokens", method="POST", json={"name": name, "role": "reader"}).json()["secret"])

    def guess(n: int) -> httpx.Response:
        return ask("barlow_" + f"{n:x}".rjust(43, "x"))

    mine, revoked = make("mine"), make("revoked")
    ask(ADMIN, "/tokens/revoked", method="DELETE")
    assert [guess(n).status_code for n in range(BURST)] == [401] * BURST
    said = len(caplog.records)
    statements: list[str] = []
    event.listen(app.state.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    slowed = guess(BURST)
    assert (slowed.status_code, slowed.json()["type"]) == (429, "/problems/too-many-refusals")
    assert slowed.headers["Retry-After"] == "1"
    asked = len(statements)
    assert [guess(n).status_code for n in range(100)] == [429] * 100
    assert ask(revoked).status_code == ask("malformed").status_code == 429
    assert len(statements) == asked, "a flood of tokens is no flood of queries"
    assert len(caplog.records) == said, "and none of lines"
    assert ask(ADMIN).status_code == ask(mine).status_code == 200, "they share the address, and are let in"

    late = make("late")
    assert ask(late).status_code == 429
    clock.now += GOOD_SECONDS
    while guess(0).status_code == 401:
        pass
    assert ask(late).status_code == 200
    assert 'barlow_refused_tokens_total{why="slowed"} 105.0' in ask(ADMIN, "http://barlow/metrics").text


def test_no_token_is_no_guess_and_a_database_that_is_away_no_refusal(database: Settings, clock: Clock) -> None:
    nowhere = database.model_copy(update={"database_url": SecretStr("postgresql://u@127.0.0.1:1/x")})
    app = create_app(guarded(nowhere))
    app.state.guard.refusals = Refusals(clock, burst=1)
    with httpx.Client(transport=InProcess(app), base_url="http://barlow/api/v1") as client:
        for _ in range(3):
            assert client.get("/whoami").status_code == 401
            assert client.get("/whoami", headers=bearer(UNKNOWN)).status_code == 503
    app.state.parts.close()
    app.state.engine.dispose()


def test_what_a_proxy_says_of_an_address_forges_no_line(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    transport = httpx.ASGITransport(app, client=("10.0.0.1\nrefused\x1b[31m" + "9" * 500, 1))

    async def ask() -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://barlow/api/v1") as client:
            made = await client.post("/tokens", json={"name": "x", "role": "reader"}, headers=bearer(ADMIN))
            assert made.status_code == 201
            kept = (await client.get("/audit", headers=bearer(ADMIN))).json()["items"][0]["address"]
            assert kept.startswith(r"10.0.0.1\nrefused\x1b[31m9")
            assert len(kept) == 100
            return (await client.get("/whoami", headers=bearer(UNKNOWN))).status_code

    caplog.set_level(logging.WARNING)
    assert asyncio.run(ask()) == 401
    (line,) = [record.getMessage() for record in caplog.records if record.name == "service.api.auth"]
    assert line.startswith(r"refused a token from 10.0.0.1\nrefused\x1b[31m9")
    assert line.endswith(": unknown")
