"""Whose a job is: its user's, whichever token; others look, admins change it; and what is done stands in the trail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, PRETRAIN, bearer, guarded
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from service.api.roles import LEAST_ROLE
from service.callers import Role
from service.database.tables import AuditEntry, Job
from service.settings import Settings

VERBS = ["cancel", "pause", "rebuild-mlflow", "resume", "retry"]
Ask = Callable[..., httpx.Response]


class Lab:
    """A guarded API with tokens by name."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.tokens = {"bootstrap": ADMIN}

    def make(self, name: str, role: str = "submitter", **more: str) -> None:
        answer = self.ask("bootstrap", "POST", "/tokens", json={"name": name, "role": role, **more})
        assert answer.status_code == 201, answer.text
        self.tokens[name] = answer.json()["secret"]

    def ask(self, token: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**options.pop("headers", {}), **bearer(self.tokens[token])}
        return self.client.request(method, path, headers=headers, **options)

    def submit(self, token: str, **options: Any) -> str:
        answer = self.ask(token, "POST", "/jobs", json=PRETRAIN, **options)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@pytest.fixture
def lab(database: Settings, in_process: Callable[[Settings], AbstractContextManager[httpx.Client]]) -> Iterator[Lab]:
    with in_process(guarded(database)) as client:
        lab = Lab(client)
        lab.make("alice-1", user="alice")
        lab.make("alice-2", user="alice")
        lab.make("alice-reads", "reader", user="alice")
        lab.make("bob")
        lab.make("boss", "admin")
        yield lab


def test_the_verbs_are_all_that_changes_a_job() -> None:
    changing = {route.rpartition(":")[2] for route in LEAST_ROLE if route.startswith("POST /jobs/{job_id}:")}
    assert changing == set(VERBS)


def test_a_job_is_its_users_whichever_token_it_came_by(lab: Lab) -> None:
    key = {"headers": {"Idempotency-Key": "one"}}
    job = lab.submit("alice-1", **key)
    assert lab.submit("alice-2", **key) == job, "a key is the user's, too"
    lab.ask("bootstrap", "DELETE", "/tokens/alice-1")
    seen = lab.ask("alice-2", "GET", f"/jobs/{job}").json()
    assert (seen["submitted_by"], seen["verbs"]) == ("alice", ["cancel", "pause"])
    assert lab.ask("alice-2", "POST", f"/jobs/{job}:pause").status_code == 202
    assert lab.ask("alice-2", "POST", f"/jobs/{job}:resume").status_code == 202
    assert lab.ask("alice-2", "POST", f"/jobs/{job}:cancel").json()["reason"]["words"] == "cancelled by alice-2"
    again = lab.ask("alice-2", "POST", f"/jobs/{job}:retry").json()
    assert (again["retry_of"], again["submitted_by"]) == (job, "alice")


@pytest.mark.parametrize("verb", VERBS)
def test_nobody_else_changes_it_but_admins(lab: Lab, verb: str) -> None:
    job = lab.submit("alice-1")
    for token, status, problem in (("bob", 403, "not-the-owner"), ("alice-reads", 403, "forbidden")):
        refused = lab.ask(token, "POST", f"/jobs/{job}:{verb}")
        assert (refused.status_code, refused.json()["type"]) == (status, f"/problems/{problem}")
    refused = lab.ask("bob", "POST", f"/jobs/{job}:{verb}")
    assert "is of user alice, and the token bob is of user bob; ask alice or an admin" in refused.json()["detail"]
    assert "BARLOW_SUBMITTERS_CHANGE_ALL=true" in refused.json()["detail"]
    assert [event["kind"] for event in lab.ask("bob", "GET", f"/jobs/{job}/events").json()["items"]] == ["submitted"]
    for admin in ("boss", "bootstrap"):
        assert lab.ask(admin, "POST", f"/jobs/{job}:{verb}").status_code in (202, 409, 200), verb


def test_verbs_are_shown_to_those_who_may_ask_them(lab: Lab) -> None:
    job = lab.submit("alice-1")
    for token, verbs in (("alice-2", True), ("boss", True), ("bob", False), ("alice-reads", False)):
        listed = lab.ask(token, "GET", "/jobs").json()["items"][0]
        shown = lab.ask(token, "GET", f"/jobs/{job}").json()
        assert listed["verbs"] == shown["verbs"] == (["cancel", "pause"] if verbs else []), token


def test_a_job_of_before_users_is_in_the_hands_of_admins(lab: Lab, session: Session) -> None:
    job = lab.submit("alice-1")
    session.execute(update(Job).values(user_name=None))
    session.commit()
    refused = lab.ask("alice-1", "POST", f"/jobs/{job}:cancel")
    assert (refused.status_code, "older than users are" in refused.json()["detail"]) == (403, True)
    assert lab.ask("alice-1", "GET", f"/jobs/{job}").json()["submitted_by"] is None
    assert lab.ask("boss", "POST", f"/jobs/{job}:cancel").status_code == 202


def test_a_setting_keeps_the_open_way(
    lab: Lab, database: Settings, in_process: Callable[[Settings], AbstractContextManager[httpx.Client]]
) -> None:
    job = lab.submit("alice-1")
    with in_process(guarded(database).model_copy(update={"submitters_change_all": True})) as client:
        open_lab = Lab(client)
        open_lab.tokens = lab.tokens
        assert open_lab.ask("alice-reads", "POST", f"/jobs/{job}:cancel").status_code == 403
        assert open_lab.ask("bob", "GET", f"/jobs/{job}").json()["verbs"] == ["cancel", "pause"]
        assert open_lab.ask("bob", "POST", f"/jobs/{job}:cancel").status_code == 202
        assert open_lab.ask("bob", "POST", f"/jobs/{job}:retry").json()["submitted_by"] == "bob"


def test_jobs_are_listed_by_user_and_experiments_are_shared(lab: Lab) -> None:
    alice, bob = (lab.submit(token, params={"experiment": "shared"}) for token in ("alice-1", "bob"))
    for user, found in (("alice", [alice]), ("bob", [bob]), ("nobody", [])):
        items = lab.ask("alice-reads", "GET", "/jobs", params={"user": user}).json()["items"]
        assert [item["id"] for item in items] == found


def test_the_trail_holds_what_was_done_with_tokens_slots_and_runs_and_no_secret(lab: Lab, session: Session) -> None:
    lab.make("later", "reader", user="dora", expires_in="1d")
    for _ in range(2):  # the second changes nothing
        assert lab.ask("boss", "DELETE", "/tokens/later").status_code == 200
    assert lab.ask("bob", "GET", "/audit").status_code == 403
    items = lab.ask("boss", "GET", "/audit", params={"page_size": 2}).json()
    revoked, created = items["items"]
    assert (revoked["action"], revoked["subject"], revoked["actor"]) == ("token.revoke", "later", "boss")
    assert (created["action"], created["subject"], created["user"]) == ("token.create", "later", "bootstrap")
    assert (created["detail"]["user"], created["detail"]["role"]) == ("dora", "reader")
    assert created["address"] == "127.0.0.1"
    more = lab.ask("boss", "GET", "/audit", params={"page_token": items["next_page_token"]}).json()
    assert [item["subject"] for item in more["items"]] == ["boss", "bob", "alice-reads", "alice-2", "alice-1"]
    assert "next_page_token" not in more or more["next_page_token"] is None
    assert [item["subject"] for item in lab.ask("boss", "GET", "/audit?user=boss").json()["items"]] == ["later"]
    assert len(lab.ask("boss", "GET", "/audit?action=token.revoke").json()["items"]) == 1
    rows = " ".join(session.scalars(text("SELECT row_to_json(a)::text FROM audit a")))
    assert not any(secret in rows for secret in lab.tokens.values())


def test_a_slot_that_is_released_stands_in_the_trail(lab: Lab, session: Session, run_job: Callable[[str], Any]) -> None:
    run_job(lab.submit("alice-1"))
    release = ("POST", "/nodes/host/slots/0:release")
    assert lab.ask("boss", *release).status_code == 409
    session.execute(text("UPDATE slots SET quarantined_at = now()"))
    session.commit()
    assert lab.ask("boss", *release).status_code == 200
    found = session.query(AuditEntry).filter_by(action="slot.release").all()
    assert [(row.actor, row.subject) for row in found] == [("boss", "host/0")]


def test_what_fails_leaves_no_entry(lab: Lab, session: Session) -> None:
    before = session.query(AuditEntry).count()
    job = lab.submit("alice-1")
    assert lab.ask("alice-1", "POST", f"/jobs/{job}:rebuild-mlflow").status_code == 409
    assert lab.ask("boss", "DELETE", "/tokens/nobody").status_code == 404
    assert lab.ask("boss", "POST", "/tokens", json={"name": "bob", "role": Role.ADMIN}).status_code == 409
    assert session.query(AuditEntry).count() == before
