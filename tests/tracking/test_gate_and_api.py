"""The gate where the API is away, and where it asks nobody for a token."""

from __future__ import annotations

import secrets
from pathlib import Path

import httpx
from api_kit import ADMIN, guarded, run_server
from running_stack import wait_until
from tracking_kit import Tracking, new_run, port_of_api, stage

from service.local.servers import Mlflow
from service.settings import Settings


def test_while_the_api_is_away_the_recorder_goes_on_and_others_hear_why(mlflow: Mlflow) -> None:
    with httpx.Client(base_url=mlflow.url, timeout=30) as client:
        assert client.get("/version", headers=mlflow.headers).status_code == 200
        for headers in ({}, {"Authorization": "Bearer " + 40 * "x"}):
            # What an API said that another test had here is remembered for a few seconds.
            wait_until(lambda sent=headers: client.get("/version", headers=sent).status_code == 503, 30)
            assert f"the API at {mlflow.api_url}" in client.get("/version", headers=headers).json()["message"]
        assert client.get("/health").status_code == 200


def test_what_the_audit_trail_cannot_hold_is_not_done(mlflow: Mlflow, served: Settings, tmp_path: Path) -> None:
    tracking = Tracking(mlflow, mlflow.api_url, {"admin": ADMIN, "recorder": mlflow.token})
    made = tracking.post("experiments/create", "recorder", name=f"e-{secrets.token_hex(4)}").raise_for_status()
    run = new_run(tracking, made.json()["experiment_id"])
    with run_server(guarded(served), tmp_path, port=port_of_api(mlflow)):
        wait_until(lambda: tracking.ask("GET", "/version", "admin").status_code == 200, 30)
    # Whether the gate still remembers who this is or not.
    refused = tracking.post("runs/delete", "admin", run_id=run)
    assert (refused.status_code, "does not answer" in refused.text) == (503, True)
    assert stage(tracking, run) == "active"


def test_where_the_api_asks_nobody_neither_does_mlflow(mlflow: Mlflow, served: Settings, tmp_path: Path) -> None:
    search = f"{mlflow.url}/api/2.0/mlflow/experiments/search"
    with run_server(served, tmp_path, port=port_of_api(mlflow)):
        wait_until(lambda: httpx.post(search, json={"max_results": 1}).status_code == 200, 30)
        assert httpx.get(f"{mlflow.url}/ajax-api/3.0/mlflow/assistant/config").status_code == 404
        assert httpx.get(mlflow.url, headers={"Host": "evil.example.org"}).status_code == 421
        foreign = {"Origin": "http://127.0.0.1:1"}
        assert httpx.post(search, json={"max_results": 1}, headers=foreign).status_code == 403
