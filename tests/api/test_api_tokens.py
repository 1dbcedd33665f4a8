"""Tokens: made once, listed without their secrets, revoked for good; and none where the API asks for none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, PRETRAIN, bearer, faults_of, guarded, run_server
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from service.api.token_views import DURATION_RULE, duration
from service.database.tables import Token
from service.settings import Settings


@pytest.fixture
def admin(database: Settings, in_process: Callable[[Settings], AbstractContextManager[httpx.Client]]) -> Iterator[Any]:
    """A client of a guarded app, with the bootstrap token."""
    with in_process(guarded(database)) as client:
        client.headers.update(bearer(ADMIN))
        yield client


def make(client: httpx.Client, name: str, role: str = "reader", **more: str) -> dict[str, Any]:
    answer = client.post("/tokens", json={"name": name, "role": role, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_token_is_shown_once_works_and_ends_with_its_revocation(admin: httpx.Client) -> None:
    answer = admin.post("/tokens", json={"name": "alice", "role": "submitter"})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    made = answer.json()
    secret = made.pop("secret")
    assert re.fullmatch(r"barlow_[A-Za-z0-9_-]{43}", secret)
    assert make(admin, "bob")["secret"] != secret
    assert (made["name"], made["role"], made["created_by"], made["revoked_at"]) == (
        "alice", "submitter", "bootstrap", None,
    )  # fmt: skip
    listed = admin.get("/tokens")
    assert [token["name"] for token in listed.json()["items"]] == ["alice", "bob"]
    assert listed.json()["items"][0] == made
    assert admin.get("/whoami", headers=bearer(secret)).json() == {
        "name": "alice", "user": "alice", "role": "submitter", "expires_at": None,
    }  # fmt: skip

    revoked = admin.delete("/tokens/alice")
    assert (revoked.status_code, revoked.json()["name"]) == (200, "alice")
    assert revoked.json()["revoked_at"] is not None
    assert admin.delete("/tokens/alice").json() == revoked.json()
    refused = admin.get("/whoami", headers=bearer(secret))
    assert (refused.status_code, refused.json()["type"]) == (401, "/problems/unauthorized")
    assert "alice was revoked" in refused.json()["detail"]
    assert admin.delete("/tokens/nobody").json()["type"] == "/problems/not-found"


def test_a_token_that_has_expired_is_refused_as_a_revoked_one(admin: httpx.Client, session: Session) -> None:
    made = make(admin, "alice-laptop", user="alice", expires_in="90d")
    left = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert (made["user"], left) == ("alice", timedelta(days=90))
    who = admin.get("/whoami", headers=bearer(made["secret"])).json()
    assert (who["name"], who["user"], who["expires_at"]) == ("alice-laptop", "alice", made["expires_at"])
    session.execute(update(Token).values(expires_at=func.now()))
    session.commit()
    refused = admin.get("/whoami", headers=bearer(made["secret"]))
    assert (refused.status_code, refused.json()["type"]) == (401, "/problems/unauthorized")
    assert "alice-laptop expired at 20" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [("30m", timedelta(minutes=30)), ("12h", timedelta(hours=12)), ("90d", timedelta(90)), ("8w", timedelta(56))],
)
def test_a_duration_is_a_number_and_a_unit(text: str, meant: timedelta) -> None:
    assert duration(text) == meant


@pytest.mark.parametrize(
    "text", ["", "d", "0d", "-1d", "1.5d", "90", "90 d", "90D", "1y", "٣d", "3651d", "99999999999w"]
)
def test_what_is_no_duration_is_said_so(admin: httpx.Client, text: str) -> None:
    answer = admin.post("/tokens", json={"name": "x", "role": "reader", "expires_in": text})
    assert faults_of(answer) == {"/expires_in": DURATION_RULE}


def test_a_name_is_used_once_even_after_its_revocation(admin: httpx.Client) -> None:
    """Or the next one of the name would get the replays of the first one's idempotency keys."""
    make(admin, "alice")
    for _ in range(2):
        again = admin.post("/tokens", json={"name": "alice", "role": "admin"})
        assert (again.status_code, again.json()["type"]) == (409, "/problems/name-taken")
        assert "take another name" in faults_of(again)["/name"]
        admin.delete("/tokens/alice")


@pytest.mark.parametrize("name", ["bootstrap", "anonymous", "scheduler", "ledger", "Bootstrap", "LEDGER"])
def test_no_token_passes_for_another_actor(admin: httpx.Client, name: str) -> None:
    answer = admin.post("/tokens", json={"name": name, "user": name, "role": "reader"})
    assert faults_of(answer) == dict.fromkeys(("/name", "/user"), f"{name!r} is the service's own; take another name")
    assert admin.get("/tokens").json() == {"items": []}


def test_the_bootstrap_token_is_not_revoked_by_the_api(admin: httpx.Client) -> None:
    answer = admin.delete("/tokens/bootstrap")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/bootstrap-token")
    assert "BARLOW_ADMIN_TOKEN" in answer.json()["detail"]
    assert admin.get("/whoami").status_code == 200


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"/name", "/role"}),
        ({"name": "a b", "role": "owner"}, {"/name", "/role"}),
        ({"name": "node:gpu-1", "role": "reader"}, {"/name"}),
        ({"name": "x", "role": "reader", "a/b~": 1}, {"/a~1b~0"}),
        ({"name": "x", "role": "reader", "user": "a b", "expires_in": "never"}, {"/user", "/expires_in"}),
        (["x"], {""}),
        ("x", {""}),
    ],
)
def test_a_bad_request_names_every_fault(admin: httpx.Client, body: Any, pointers: set[str]) -> None:
    answer = admin.post("/tokens", json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-token")
    assert set(faults_of(answer)) == pointers


def test_without_an_admin_token_everybody_is_anonymous_and_none_is_made(api: httpx.Client) -> None:
    assert api.get("/whoami").json() == {
        "name": "anonymous", "user": "anonymous", "role": "admin", "expires_at": None,
    }  # fmt: skip
    assert api.get("/whoami", headers=bearer("whatever")).json()["name"] == "anonymous"
    answer = api.post("/tokens", json={"name": "alice", "role": "admin"})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/tokens-off")
    assert "BARLOW_ADMIN_TOKEN" in answer.json()["detail"]
    assert api.get("/tokens").json() == {"items": []}


def test_one_name_asked_for_at_once_is_made_once_and_the_log_holds_no_secret(
    database: Settings, tmp_path: Path
) -> None:
    with run_server(guarded(database), tmp_path) as address, httpx.Client(base_url=f"{address}/api/v1") as client:
        client.headers.update(bearer(ADMIN))

        def ask(_: int) -> httpx.Response:
            return client.post("/tokens", json={"name": "race", "role": "submitter"}, timeout=30)

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(ask, range(6)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
        [secret] = [answer.json()["secret"] for answer in answers if answer.is_success]
        submitted = client.post("/jobs", json=PRETRAIN, headers=bearer(secret))
        assert submitted.status_code == 201
        # A refused body is not read: the connection ends with the answer instead of taking it for the next request.
        refused = client.post("/jobs", content=b"x" * 900_000, headers=bearer("barlow_wrong"))
        assert (refused.status_code, refused.headers["Connection"]) == (401, "close")
        assert client.get("/jobs", headers=bearer(secret)).status_code == 200
        written = (tmp_path / "api.log").read_text()
    assert secret not in written
    assert ADMIN not in written
