"""What one user may take of the queue: open jobs and priority, by role."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, PRETRAIN, bearer, faults_of, guarded
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.api.app import create_app
from service.database.tables import Job
from service.settings import Settings

InProcess = Callable[[Settings], AbstractContextManager[httpx.Client]]


@pytest.fixture
def ana(database: Settings, in_process: InProcess) -> Iterator[dict[str, Any]]:
    """A client, and headers of a submitter `ana` with two tokens, of another submitter and of the admin."""
    few = guarded(database).model_copy(update={"max_open_jobs": 3, "max_submitter_priority": 5})
    with in_process(few) as client:
        who: dict[str, Any] = {"client": client, "admin": bearer(ADMIN)}
        for name, user in (("ana", "ana"), ("ana-laptop", "ana"), ("ben", "ben")):
            asked = {"name": name, "user": user, "role": "submitter"}
            who[name] = bearer(client.post("/tokens", json=asked, headers=who["admin"]).json()["secret"])
        yield who


def with_priority(priority: int) -> dict[str, Any]:
    return {**PRETRAIN, "run": {"priority": priority}}


def test_the_open_jobs_of_a_user_are_bounded_whatever_token_asks(ana: dict[str, Any]) -> None:
    client: httpx.Client = ana["client"]
    jobs = [client.post("/jobs", json=PRETRAIN, headers=ana[name]).json() for name in ("ana", "ana-laptop", "ana")]
    assert client.post(f"/jobs/{jobs[0]['id']}:pause", headers=ana["ana"]).json()["state"] == "paused"
    for query in ("", "?validate_only=true"):
        refused = client.post(f"/jobs{query}", json=PRETRAIN, headers=ana["ana-laptop"])
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/too-many-open-jobs")
        assert "ana has 3 open jobs" in refused.json()["detail"]
        assert "BARLOW_MAX_OPEN_JOBS" in refused.json()["detail"]
    assert client.post("/jobs", json=PRETRAIN, headers=ana["ben"]).status_code == 201
    assert client.post("/jobs", json=PRETRAIN, headers=ana["admin"]).status_code == 201

    # One that has ended makes room for one, a retry of it as well as another.
    assert client.post(f"/jobs/{jobs[1]['id']}:cancel", headers=ana["ana"]).json()["state"] == "cancelled"
    assert client.post(f"/jobs/{jobs[1]['id']}:retry", headers=ana["ana"]).status_code == 202
    refused = client.post(f"/jobs/{jobs[1]['id']}:retry", headers=ana["ana"])
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/too-many-open-jobs")


def test_an_experiment_has_room_for_all_of_its_jobs_or_none(ana: dict[str, Any]) -> None:
    client: httpx.Client = ana["client"]
    jobs = {f"job-{i}": PRETRAIN for i in range(4)}
    refused = client.post("/experiments", json={"name": "sweep", "jobs": jobs}, headers=ana["ana"])
    assert refused.status_code == 409
    assert "asks for 4 more" in refused.json()["detail"]
    assert client.get("/experiments", headers=ana["ana"]).json()["items"] == []
    made = client.post("/experiments", json={"name": "sweep", "jobs": jobs}, headers=ana["admin"])
    assert made.status_code == 201


def test_jobs_asked_for_at_once_do_not_pass_the_bound(ana: dict[str, Any], database: Settings) -> None:
    async def post_all() -> list[int]:
        app = create_app(guarded(database).model_copy(update={"max_open_jobs": 3}))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost/api/v1") as client:
            posts = [client.post("/jobs?experiment=race", json=PRETRAIN, headers=ana["ana"]) for _ in range(8)]
            answers = await asyncio.gather(*posts)
        app.state.parts.close()
        app.state.engine.dispose()
        return [answer.status_code for answer in answers]

    assert sorted(asyncio.run(post_all())) == [201] * 3 + [409] * 5


def test_a_key_answers_with_its_job_also_where_there_is_no_more_room(ana: dict[str, Any]) -> None:
    client: httpx.Client = ana["client"]
    keyed = {**ana["ana"], "Idempotency-Key": "first"}
    first = client.post("/jobs", json=PRETRAIN, headers=keyed)
    for _ in range(2):
        assert client.post("/jobs", json=PRETRAIN, headers=ana["ana"]).status_code == 201
    again = client.post("/jobs", json=PRETRAIN, headers=keyed)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])


def test_priority_is_bounded_by_the_role(ana: dict[str, Any]) -> None:
    client: httpx.Client = ana["client"]
    for priority in (-100, 0, 5):
        assert client.post("/jobs", json=with_priority(priority), headers=ana["ben"]).status_code == 201
    assert client.post("/jobs", json=with_priority(100), headers=ana["admin"]).status_code == 201
    said = faults_of(client.post("/jobs", json=with_priority(6), headers=ana["ana"]))["/run/priority"]
    assert said == (
        "priority 6 is for admins; a submitter may ask for up to 5 (BARLOW_MAX_SUBMITTER_PRIORITY); "
        "take a lower one, or ask an admin to submit it"
    )
    # With every other fault of the body, in an experiment too.
    mixed = {"name": "mixed", "jobs": {"a": {**with_priority(6), "epochs": 0}, "b": with_priority(7), "c": PRETRAIN}}
    assert set(faults_of(client.post("/experiments", json=mixed, headers=ana["ana"]))) == {
        "/jobs/a/epochs", "/jobs/a/run/priority", "/jobs/b/run/priority",
    }  # fmt: skip


def test_a_job_of_more_priority_than_one_may_ask_for_is_retried_by_an_admin(
    ana: dict[str, Any], session: Session
) -> None:
    """As what an earlier version took: it is shown, paused and resumed; only a new job of it needs an admin."""
    client: httpx.Client = ana["client"]
    job = client.post("/jobs", json=with_priority(1), headers=ana["ana"]).json()["id"]
    stored = {**PRETRAIN, "run": {"priority": 50}}
    session.execute(update(Job).values(priority=50, spec=Job.spec.concat(stored)))
    session.commit()
    assert client.post(f"/jobs/{job}:pause", headers=ana["ana"]).status_code == 202
    assert client.post(f"/jobs/{job}:resume", headers=ana["ana"]).status_code == 202
    assert client.post(f"/jobs/{job}:cancel", headers=ana["ana"]).status_code == 202
    refused = client.post(f"/jobs/{job}:retry", headers=ana["ana"])
    assert "ask an admin to retry it" in faults_of(refused)[""]
    assert client.post(f"/jobs/{job}:retry", headers=ana["admin"]).status_code == 202
