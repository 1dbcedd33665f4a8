"""No route answers without a token but the open ones; roles; what is asked, compared, stored and written down."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, PRETRAIN, InProcess, bearer, guarded
from fastapi import Depends, FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from service.api import auth
from service.api.app import create_app
from service.api.refusals import Refusals
from service.api.roles import LEAST_ROLE, OF_BROWSERS, OPEN
from service.callers import Role
from service.settings import Settings

ROOT = "http://barlow/api/v1"
UNKNOWN = "barlow_" + 43 * "x"

Ask = Callable[..., httpx.Response]


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Every logger at its loudest, SQL included; asked for before `app`, whose engine looks at the level once."""
    for name in (None, "sqlalchemy.engine"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


@pytest.fixture
def app(database: Settings) -> Iterator[FastAPI]:
    made = create_app(guarded(database))
    yield made
    made.state.parts.close()
    made.state.engine.dispose()


@pytest.fixture
def ask(app: FastAPI) -> Iterator[Ask]:
    """Asks the guarded app: `ask("GET", "/jobs", token)`."""
    with httpx.Client(transport=InProcess(app), base_url=ROOT) as client:

        def send(method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
            headers = {**options.pop("headers", {}), **(bearer(token) if token else {})}
            return client.request(method, path, headers=headers, **options)

        yield send


@pytest.fixture
def make(ask: Ask) -> Callable[[str, str], str]:
    """Makes a token of a name and a role; its secret."""

    def made(name: str, role: str) -> str:
        answer = ask("POST", "/tokens", ADMIN, json={"name": name, "role": role})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["secret"])

    return made


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    """Method and template of everything the app serves."""
    found = iter_route_contexts(app.routes)
    return [(method, str(route.path)) for route in found for method in sorted(route.methods or ())]


def written_out(template: str) -> str:
    """A path of this template; nothing is there."""
    numbers = ("step", "index", "checkpoint_id")
    for name in (*numbers, "job_id", "experiment_id", "node", "name", "code", "asset", "key"):
        template = template.replace("{" + name + "}", "7" if name in numbers else "nobody")
    assert "{" not in template, f"a new path parameter: {template}"
    return "http://barlow" + template


def guarded_name(method: str, path: str) -> str:
    return f"{method} {path.removeprefix('/api/v1')}"


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"]


def test_every_route_is_open_or_has_a_role(app: FastAPI) -> None:
    routes = every_route(app)
    assert {path for _, path in routes if path.startswith("/api/")}.isdisjoint(OPEN)
    needed = {guarded_name(method, path) for method, path in routes if path not in OPEN}
    assert needed == set(LEAST_ROLE) | OF_BROWSERS, "add a new route to service/api/roles.py, and take an old one out"


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Basic {ADMIN}", ADMIN, f"Bearer {UNKNOWN}", f"Bearer {ADMIN[:-1]}", "Bearer é"],
)
def test_no_route_answers_without_a_token_but_the_open_ones(app: FastAPI, ask: Ask, authorization: str | None) -> None:
    app.state.guard.refusals = Refusals(burst=10_000)
    sent = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    for method, path in every_route(app):
        answer = ask(method, written_out(path), headers=sent)
        if path in OPEN:
            assert answer.status_code != 401, path
        else:
            assert problem(answer) == (401, "/problems/unauthorized"), path
            assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="barlow"')
            assert ("invalid_token" in answer.headers["WWW-Authenticate"]) == (authorization is not None)


def test_streams_and_downloads_are_guarded_alike(ask: Ask, make: Callable[[str, str], str]) -> None:
    reader = make("looks", "reader")
    job = ask("POST", "/jobs", ADMIN, json=PRETRAIN).json()["id"]
    for path in ("events", "logs"):
        stream = {"headers": {"Accept": "text/event-stream"}, "params": {"follow": "false"}}
        assert ask("GET", f"/jobs/{job}/{path}", **stream).status_code == 401
        assert ask("GET", f"/jobs/{job}/{path}", UNKNOWN, **stream).status_code == 401
        assert "event: end" in ask("GET", f"/jobs/{job}/{path}", reader, **stream).text


def test_each_role_may_what_it_may(app: FastAPI, ask: Ask, make: Callable[[str, str], str]) -> None:
    tokens = {role: make(f"a-{role}", role) for role in Role}
    refused = dict.fromkeys(Role, 0)
    for method, path in every_route(app):
        least = LEAST_ROLE.get(guarded_name(method, path))
        if guarded_name(method, path) in OF_BROWSERS:
            continue
        for role, token in tokens.items():
            answer = ask(method, written_out(path), token)
            if least is None or role.may(least):
                assert answer.status_code not in (401, 403), (role, path)
            else:
                refused[role] += 1
                assert problem(answer) == (403, "/problems/forbidden"), (role, path)
                assert f"takes the role {least}" in answer.json()["detail"]
    assert (refused[Role.ADMIN], refused[Role.SUBMITTER], refused[Role.READER]) == (0, 6, 13)


def test_a_route_without_a_role_answers_nobody(app: FastAPI) -> None:
    @app.get("/forgotten", dependencies=[Depends(auth.authorize)])
    def forgotten() -> str:
        raise AssertionError("the route was reached")

    with httpx.Client(transport=InProcess(app)) as client, pytest.raises(KeyError, match="GET /forgotten"):
        client.get("http://barlow/forgotten", headers=bearer(ADMIN))


def test_the_actor_and_the_owner_of_keys_is_the_token(ask: Ask, make: Callable[[str, str], str]) -> None:
    alice, bob = make("alice", "submitter"), make("bob", "submitter")

    def submit(token: str, experiment: str) -> tuple[str, bool]:
        answer = ask(
            "POST", "/jobs", token, json=PRETRAIN, params={"experiment": experiment}, headers={"Idempotency-Key": "1"}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["id"], "Idempotency-Replayed" in answer.headers

    made, _ = submit(alice, "shared")
    assert submit(alice, "shared") == (made, True)
    others, replayed = submit(bob, "shared")
    assert (others != made, replayed) == (True, False)
    body = {"name": "whole", "jobs": {"a": PRETRAIN}}
    assert ask("POST", "/experiments", alice, json=body, headers={"Idempotency-Key": "2"}).status_code == 201
    assert problem(ask("POST", "/experiments", bob, json=body, headers={"Idempotency-Key": "2"})) == (
        409, "/problems/name-taken",
    )  # fmt: skip
    assert ask("POST", f"/jobs/{made}:pause", alice).json()["reason"]["words"] == "paused by alice"
    events = ask("GET", f"/jobs/{made}/events", bob).json()["items"]
    assert [(e["kind"], e["actor"]) for e in events] == [("submitted", "alice"), ("paused", "alice")]
    ask("POST", f"/jobs/{made}:cancel", ADMIN)
    assert ask("GET", f"/jobs/{made}/events", ADMIN).json()["items"][-1]["actor"] == "bootstrap"


def test_the_run_database_is_asked_for_a_token_once_at_most(
    app: FastAPI, ask: Ask, make: Callable[[str, str], str]
) -> None:
    token = make("once", "submitter")
    statements: list[str] = []
    event.listen(app.state.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    def asked(*arguments: Any, **options: Any) -> int:
        statements.clear()
        ask(*arguments, **options)
        return sum("FROM tokens" in statement for statement in statements)

    assert asked("GET", "/jobs", token) == 1
    assert asked("POST", "/jobs", token, json=PRETRAIN) == 1  # the handler asks for the caller, too
    assert asked("GET", "/jobs", UNKNOWN) == 1
    assert asked("POST", "/jobs", ADMIN, json=PRETRAIN) == 0
    for unheard in (None, "x" * 50, UNKNOWN + "x"):
        asked("GET", "/jobs", unheard)
        assert statements == []


def test_the_bootstrap_token_is_compared_in_constant_time(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []
    real = auth.hmac.compare_digest

    def spy(left: str, right: str) -> bool:
        compared.append((left, right))
        return bool(real(left, right))

    monkeypatch.setattr(auth.hmac, "compare_digest", spy)
    assert ask("GET", "/whoami", ADMIN).json()["name"] == "bootstrap"
    assert ask("GET", "/whoami", ADMIN[:-1]).status_code == 401
    whole = hashlib.sha256(ADMIN.encode()).hexdigest()
    assert compared == [(whole, whole), (hashlib.sha256(ADMIN[:-1].encode()).hexdigest(), whole)]


def test_only_hashes_are_stored(session: Session, make: Callable[[str, str], str]) -> None:
    secret = make("hashed", "reader")
    rows = session.scalars(text("SELECT row_to_json(t)::text FROM tokens t")).all()
    assert len(rows) == 1
    assert hashlib.sha256(secret.encode()).hexdigest() in rows[0]
    assert secret.removeprefix("barlow_") not in rows[0]


def test_no_secret_is_logged_or_answered(
    loud: pytest.LogCaptureFixture, app: FastAPI, ask: Ask, make: Callable[[str, str], str]
) -> None:
    """In no line of a log, and in no answer but the one that makes the token."""
    secret = make("quiet", "submitter")
    app.state.guard.refusals = Refusals(burst=10_000)
    said = [ask(m, written_out(p), t) for m, p in every_route(app) for t in (secret, UNKNOWN, ADMIN)]
    ask("DELETE", "/tokens/quiet", ADMIN)
    said += [ask("GET", "/jobs", secret), ask("GET", "http://barlow/metrics", ADMIN)]
    assert "INSERT INTO tokens" in loud.text
    written = loud.text + "".join(answer.text + str(answer.headers) for answer in said)
    for token in (secret, UNKNOWN, ADMIN):
        assert token not in written
    hashed = hashlib.sha256(secret.encode()).hexdigest()
    assert not any(hashed in answer.text for answer in said)


def test_while_the_run_database_is_away_a_token_is_neither_right_nor_wrong(database: Settings) -> None:
    nowhere = database.model_copy(update={"database_url": SecretStr("postgresql://u@127.0.0.1:1/x")})
    app = create_app(guarded(nowhere))
    with httpx.Client(transport=InProcess(app), base_url=ROOT) as client:
        assert problem(client.get("/whoami", headers=bearer(UNKNOWN))) == (503, "/problems/unavailable")
        assert client.get("/whoami", headers=bearer(ADMIN)).status_code == 200
    app.state.parts.close()
    app.state.engine.dispose()


def test_the_document_says_what_takes_a_token(app: FastAPI, api: httpx.Client) -> None:
    def secured(document: dict[str, Any]) -> set[str]:
        return {
            guarded_name(method.upper(), path)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if operation.get("security") == [{"token": []}] and {"401", "403"} <= set(operation["responses"])
        }

    document = app.openapi()
    assert secured(document) == set(LEAST_ROLE)
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert secured(api.get("http://barlow/openapi.json").json()) == set()
