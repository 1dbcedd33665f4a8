"""Refused tokens: a line and a count each, and an address that goes on sending them waits; nobody else for long."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import httpx
import pytest
from api_kit import ADMIN, InProcess, bearer, guarded
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session

from service.api.app import create_app
from service.api.refusals import BURST, KEPT_SECONDS, MOST, Refusals
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
    assert [kept.take("10.0.0.1", str(n)) for n in range(BURST)] == [0.0] * BURST
    assert kept.take("10.0.0.1", "one-more") == pytest.approx(1.0)
    assert kept.take("10.0.0.2", "one-more") == 0.0
    clock.now += 1.0
    assert kept.take("10.0.0.1", "one-more") == 0.0
    assert kept.take("10.0.0.1", "one-more") == pytest.approx(1.0)
    clock.now += 1000.0
    assert [kept.take("10.0.0.1", str(n)) for n in range(BURST + 1)] == [*([0.0] * BURST), 1.0]


def test_a_good_token_costs_nothing_and_is_not_held_up_by_others_of_its_address(clock: Clock) -> None:
    kept = Refusals(clock)
    for _ in range(2 * BURST):
        assert kept.take("proxy", "good") == 0.0
        kept.accepted("proxy", "good")
    while kept.take("proxy", "bad") == 0.0:
        pass
    assert kept.take("proxy", "good") == 0.0
    kept.refused("good")  # it was revoked
    assert kept.take("proxy", "good") > 0.0
    clock.now += 1.0
    assert kept.take("proxy", "new") == 0.0, "another good one waits a second"
    kept.accepted("proxy", "new")
    clock.now += KEPT_SECONDS
    while kept.take("proxy", "bad") == 0.0:
        pass
    assert kept.take("proxy", "new") > 0.0


def test_what_could_not_be_looked_up_does_not_count(clock: Clock) -> None:
    kept = Refusals(clock)
    for _ in range(2 * BURST):
        assert kept.take("10.0.0.1", "x") == 0.0
        kept.excused("10.0.0.1")


def test_a_machine_has_one_bucket_of_ipv6_and_memory_has_an_end(clock: Clock) -> None:
    kept = Refusals(clock)
    for n in range(BURST):
        assert kept.take(f"2001:db8::{n:x}", "x") == 0.0
    assert kept.take("2001:db8::ffff:1", "x") > 0.0
    assert kept.take("2001:db8:0:1::1", "x") == 0.0
    for n in range(2 * MOST):
        kept.take(f"host-{n}", "x")
        kept.accepted(f"host-{n}", str(n))
    assert len(kept._spent) == len(kept._good) == MOST


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


def test_an_address_that_goes_on_is_told_to_wait_and_the_run_database_is_not_asked(
    ask: Callable[..., httpx.Response], app: FastAPI, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(ADMIN).status_code == 200
    statuses = [ask("barlow_" + f"{n:x}".rjust(43, "x")).status_code for n in range(BURST + 5)]
    assert statuses == [401] * BURST + [429] * 5
    said = len(caplog.records)
    app.state.engine.dispose()
    app.state.sessions.configure(bind=None)  # whoever asks now fails
    slowed = ask(UNKNOWN)
    assert (slowed.status_code, slowed.json()["type"]) == (429, "/problems/too-many-refusals")
    assert slowed.headers["Retry-After"] == "1"
    assert len(caplog.records) == said, "a flood of tokens is no flood of lines"
    assert ask(ADMIN).status_code == 200, "it was accepted before"
    clock.now += 1.0
    app.state.sessions.configure(bind=app.state.engine)
    assert ask(UNKNOWN).status_code == 401
    assert 'barlow_refused_tokens_total{why="slowed"} 6.0' in ask(ADMIN, "http://barlow/metrics").text


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
