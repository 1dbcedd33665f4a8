"""Links for browsers: what they hold, how they are redeemed once, and what ends a session."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, PRETRAIN, InProcess, bearer, guarded
from fastapi import FastAPI
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from service.api.app import create_app
from service.api.token_secrets import sha256
from service.database.tables import BrowserSession, Experiment, Job
from service.settings import Settings

ROOT = "http://barlow/api/v1"
MLFLOW = "https://mlflow.example.org"

Ask = Callable[..., httpx.Response]


@pytest.fixture
def app(database: Settings) -> Iterator[FastAPI]:
    made = create_app(guarded(database).model_copy(update={"mlflow_public_url": MLFLOW + "/"}))
    yield made
    made.state.parts.close()
    made.state.engine.dispose()


@pytest.fixture
def ask(app: FastAPI) -> Iterator[Ask]:
    with httpx.Client(transport=InProcess(app), base_url=ROOT) as client:

        def send(method: str, path: str, secret: str, **options: Any) -> httpx.Response:
            return client.request(method, path, headers=bearer(secret), **options)

        yield send


def _code(answer: httpx.Response) -> str:
    assert answer.status_code == 201, answer.text
    found = re.fullmatch(re.escape(MLFLOW) + r"/enter\?code=([A-Za-z0-9_-]{43})", answer.json()["url"])
    assert found, answer.text
    return found[1]


def _reader(ask: Ask, name: str = "looks") -> str:
    return str(ask("POST", "/tokens", ADMIN, json={"name": name, "role": "reader"}).json()["secret"])


def test_a_code_is_redeemed_once_for_a_session_of_its_caller(ask: Ask, app: FastAPI) -> None:
    reader = _reader(ask)
    made = ask("POST", "/entries", reader)
    code = _code(made)
    assert made.headers["Cache-Control"] == "no-store"
    for _ in range(2):  # looked at as often as one likes
        assert ask("GET", "/entries/current", code).json() == {"service": "mlflow", "path": "/", "usable": True}
    session = ask("POST", "/sessions", code)
    assert session.status_code == 201
    secret = session.json()["secret"]
    seen = ask("GET", "/sessions/current", secret).json()
    assert (seen["service"], seen["name"], seen["user"], seen["role"]) == ("mlflow", "looks", "looks", "reader")
    assert ask("POST", "/sessions", code).status_code == 401
    assert ask("GET", "/entries/current", code).json()["usable"] is False
    assert ask("DELETE", "/sessions/current", secret).status_code == 204
    assert ask("GET", "/sessions/current", secret).status_code == 401
    assert ask("DELETE", "/sessions/current", secret).status_code == 401


def test_neither_code_nor_session_opens_the_api(ask: Ask) -> None:
    code = _code(ask("POST", "/entries", ADMIN))
    secret = ask("POST", "/sessions", _code(ask("POST", "/entries", ADMIN))).json()["secret"]
    for stolen in (code, secret):
        for method, path in (("GET", "/whoami"), ("GET", "/jobs"), ("POST", "/entries")):
            assert ask(method, path, stolen).status_code == 401
    assert ask("GET", "/sessions/current", code).status_code == 401
    assert ask("GET", "/sessions/current", ADMIN).status_code == 401
    assert ask("POST", "/sessions", secret).status_code == 401


def test_only_hashes_are_stored(ask: Ask, app: FastAPI) -> None:
    code = _code(ask("POST", "/entries", ADMIN))
    secret = ask("POST", "/sessions", code).json()["secret"]
    with Session(app.state.engine) as session:
        (row,) = session.execute(text("SELECT browser_sessions::text FROM browser_sessions")).scalars()
    assert sha256(code) in row
    assert sha256(secret) in row
    assert code not in row
    assert secret not in row
    assert ADMIN not in row


def test_of_many_at_once_one_redeems(ask: Ask, app: FastAPI) -> None:
    code = _code(ask("POST", "/entries", ADMIN))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask("POST", "/sessions", code).status_code, range(6)))
    assert sorted(answers) == [201] + 5 * [401]


def test_a_session_ends_with_its_token_and_with_its_time(ask: Ask, app: FastAPI) -> None:
    reader = _reader(ask)
    secret = ask("POST", "/sessions", _code(ask("POST", "/entries", reader))).json()["secret"]
    waiting = _code(ask("POST", "/entries", reader))
    ask("DELETE", "/tokens/looks", ADMIN).raise_for_status()
    assert ask("GET", "/sessions/current", secret).status_code == 401
    assert ask("POST", "/sessions", waiting).status_code == 401

    mine = ask("POST", "/sessions", _code(ask("POST", "/entries", ADMIN))).json()["secret"]
    late = _code(ask("POST", "/entries", ADMIN))
    with Session(app.state.engine) as session, session.begin():
        session.execute(update(BrowserSession).values(expires_at=text("now() - interval '1 second'")))
    assert ask("GET", "/sessions/current", mine).status_code == 401
    assert ask("POST", "/sessions", late).status_code == 401
    _code(ask("POST", "/entries", ADMIN))
    with Session(app.state.engine) as session:
        assert session.scalar(text("SELECT count(*) FROM browser_sessions")) == 1  # what had expired is gone


def test_a_session_of_the_bootstrap_token_ends_with_it(ask: Ask, database: Settings) -> None:
    secret = ask("POST", "/sessions", _code(ask("POST", "/entries", ADMIN))).json()["secret"]
    assert ask("GET", "/sessions/current", secret).json()["role"] == "admin"
    changed = {"admin_token": type(guarded(database).admin_token)(ADMIN + "-2")}
    other = create_app(database.model_copy(update=changed))
    with httpx.Client(transport=InProcess(other), base_url=ROOT) as client:
        assert client.get("/sessions/current", headers=bearer(secret)).status_code == 401
    other.state.parts.close()
    other.state.engine.dispose()


def test_a_link_leads_to_a_run_or_an_experiment(ask: Ask, app: FastAPI) -> None:
    job = ask("POST", "/jobs", ADMIN, json=PRETRAIN, params={"experiment": "e"})
    job_id = job.json()["id"]
    early = ask("POST", "/entries", ADMIN, params={"job": job_id})
    assert (early.status_code, early.json()["type"]) == (409, "/problems/no-page")
    with Session(app.state.engine) as session, session.begin():
        session.execute(update(Experiment).values(mlflow_experiment_id="7"))
        session.execute(update(Job).values(mlflow_run_id="abc"))
    for asked, begins in (
        ({"job": job_id}, "/#/experiments/7/runs/abc?"),
        ({"experiment": "e"}, "/#/experiments/7/runs?"),
    ):
        code = _code(ask("POST", "/entries", ADMIN, params=asked))
        assert ask("GET", "/entries/current", code).json()["path"].startswith(begins)
    assert ask("POST", "/entries", ADMIN, params={"job": "nobody"}).status_code == 404


def test_one_token_keeps_so_many_links(ask: Ask, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.routers.browser_sessions.KEPT", 3)
    codes = [_code(ask("POST", "/entries", ADMIN)) for _ in range(5)]
    assert [ask("GET", "/entries/current", code).status_code for code in codes] == [401, 401, 200, 200, 200]


def test_where_nobody_needs_a_token_the_link_is_the_plain_address(database: Settings) -> None:
    app = create_app(database.model_copy(update={"mlflow_public_url": MLFLOW}))
    with httpx.Client(transport=InProcess(app), base_url=ROOT) as client:
        assert client.post("/entries").json() == {"url": MLFLOW, "expires_at": None}
    app.state.parts.close()
    app.state.engine.dispose()
