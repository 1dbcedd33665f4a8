"""What an admin deletes in MLflow stands in the audit trail before it is done, or is not done."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, bearer
from tracking_kit import Tracking, come_in, new_run, stage

from service.tracking.admin_actions import act_of
from service.tracking.routes import OF_TEMPLATE, Holder


@pytest.fixture
def experiment(tracking: Tracking) -> str:
    made = tracking.post("experiments/create", "recorder", name=f"e-{secrets.token_hex(4)}")
    return str(made.raise_for_status().json()["experiment_id"])


def trail(tracking: Tracking, subject: str) -> list[dict[str, Any]]:
    """The acts of a subject, oldest first."""
    found = httpx.get(f"{tracking.api}/api/v1/audit", params={"page_size": 200}, headers=bearer(ADMIN))
    return [act for act in reversed(found.raise_for_status().json()["items"]) if act["subject"] == subject]


def test_what_an_admin_deletes_is_in_the_trail(tracking: Tracking, experiment: str) -> None:
    run = new_run(tracking, experiment)
    file = f"{experiment}/{run}/artifacts/a.txt"
    assert tracking.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{file}", "recorder", content=b"x").is_success
    assert tracking.post("runs/delete", "admin", run_id=run).status_code == 200
    assert tracking.post("runs/restore", "admin", run_id=run).status_code == 200
    assert tracking.ask("DELETE", f"/api/2.0/mlflow-artifacts/artifacts/{file}", "admin").is_success
    assert tracking.post("experiments/delete", "admin", experiment_id=experiment).status_code == 200
    acts = trail(tracking, run)
    assert [act["action"] for act in acts] == ["mlflow.runs.delete", "mlflow.runs.restore"]
    assert {(act["actor"], act["user"]) for act in acts} == {("bootstrap", "bootstrap")}
    assert acts[0]["detail"] == {"client": "127.0.0.1", "request": f'{{"run_id": "{run}"}}'}
    assert [act["action"] for act in trail(tracking, file)] == ["mlflow.artifacts.delete"]
    assert [act["action"] for act in trail(tracking, experiment)] == ["mlflow.experiments.delete"]


def test_a_body_that_says_two_things_does_what_the_trail_says(tracking: Tracking, experiment: str) -> None:
    spared, meant = new_run(tracking, experiment), new_run(tracking, experiment)
    twice = f'{{"run_id": "{spared}", "run_id": "{meant}"}}'.encode()
    json = {"Content-Type": "application/json"}
    done = tracking.ask("POST", "/api/2.0/mlflow/runs/delete", "admin", content=twice, headers=json)
    assert done.status_code == 200, done.text
    assert [act["action"] for act in trail(tracking, meant)] == ["mlflow.runs.delete"]
    assert trail(tracking, spared) == []
    assert stage(tracking, spared) == "active"
    for odd in (b"[]", b"1", b'"{}"', b"{", b"\xff", b"[" * 60_000):
        refused = tracking.ask("POST", "/api/2.0/mlflow/runs/delete", "admin", content=odd, headers=json)
        assert refused.status_code == 400, odd[:9]


def test_the_act_of_a_browser_is_that_of_its_session(
    tracking: Tracking, browser: httpx.Client, experiment: str
) -> None:
    made = {"name": f"boss-{secrets.token_hex(4)}", "user": "boss", "role": "admin"}
    token = httpx.post(f"{tracking.api}/api/v1/tokens", json=made, headers=bearer(ADMIN)).json()["secret"]
    tracking.tokens["boss"] = token
    come_in(tracking, browser, "boss")
    run = new_run(tracking, experiment)
    done = browser.post("/ajax-api/2.0/mlflow/runs/delete", json={"run_id": run})
    assert done.status_code == 200, done.text
    assert [(act["actor"], act["user"]) for act in trail(tracking, run)] == [(made["name"], "boss")]


def test_nobody_else_writes_into_the_trail(tracking: Tracking, experiment: str) -> None:
    run = new_run(tracking, experiment)
    assert tracking.post("runs/delete", "submitter", run_id=run).status_code == 403
    assert tracking.post("runs/delete", "recorder", run_id=run).status_code == 200  # the rebuild it does is there
    act = {"action": "mlflow.runs.delete", "subject": run, "asked": "{}", "client": "x"}
    for role, status in (("reader", 403), ("submitter", 403)):
        sent = httpx.post(f"{tracking.api}/api/v1/audit", params=act, headers=bearer(tracking.tokens[role]))
        assert sent.status_code == status
        entry = httpx.post(f"{tracking.api}/api/v1/entries", headers=bearer(tracking.tokens[role])).json()["url"]
        code = entry.rpartition("=")[2]
        session = httpx.post(f"{tracking.api}/api/v1/sessions", headers=bearer(code)).json()["secret"]
        for secret, expected in ((session, status), (code, 401)):
            path = f"{tracking.api}/api/v1/sessions/current/audit"
            assert httpx.post(path, params=act, headers=bearer(secret)).status_code == expected
    forged = {**act, "action": "token.create"}
    assert httpx.post(f"{tracking.api}/api/v1/audit", params=forged, headers=bearer(ADMIN)).status_code == 422
    assert trail(tracking, run) == []


def test_every_route_that_only_an_admin_has_is_an_act() -> None:
    told = {}
    for line, access in OF_TEMPLATE.items():
        method, template = line.split(" ", 1)
        path = template.replace("{*}", "a/b").replace("{}", "a")
        if Holder.ADMIN in access and Holder.SUBMITTER not in access:
            found = act_of(method, path, b'{"name": "a\\n\\u202e"}')
            assert found is not None, line
            told[line] = found[0]
        else:
            assert act_of(method, path, b"not looked at") is None, line
    assert len(told) > 15
    assert all(act.subject.isascii() and act.subject.isprintable() for act in told.values())
    assert told["DELETE /api/2.0/mlflow/logged-models/{}"].action == "mlflow.logged-models.delete"
    assert told["POST /api/3.0/mlflow/traces/delete-traces"].action == "mlflow.traces.delete-traces"
