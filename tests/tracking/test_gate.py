"""Who reads, writes and deletes in a real MLflow behind the gate; Host and Origin; what stays closed to everybody."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
from api_kit import ADMIN, bearer
from running_stack import wait_until
from tracking_kit import Tracking

ROLES = ("reader", "submitter", "admin", "recorder")


@dataclass
class Run:
    """A recorded run with a file."""

    id: str
    experiment: str
    name: str


@pytest.fixture
def run(tracking: Tracking) -> Run:
    name = f"e-{secrets.token_hex(4)}"
    experiment = _ok(tracking.post("experiments/create", "recorder", name=name))["experiment_id"]
    tags = [{"key": "barlow.job_id", "value": "1"}]
    made = _ok(tracking.post("runs/create", "recorder", experiment_id=experiment, start_time=1, tags=tags))["run"]
    run_id = made["info"]["run_id"]
    metrics = [{"key": "loss", "value": 1.5, "timestamp": 1, "step": 1}]
    _ok(tracking.post("runs/log-batch", "recorder", run_id=run_id, metrics=metrics))
    file = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts/a/b.txt"
    assert tracking.ask("PUT", file, "recorder", content=b"kept").status_code == 200
    return Run(run_id, experiment, name)


def test_who_may_do_what(tracking: Tracking, run: Run) -> None:
    key = {"run_id": run.id, "key": "note", "value": "x"}
    file = f"/api/2.0/mlflow-artifacts/artifacts/{run.experiment}/{run.id}/artifacts/a/new.txt"
    ajax = "/ajax-api/2.0/mlflow"
    everybody, noting, recording = set(ROLES), {"submitter", "admin", "recorder"}, {"recorder"}
    table: list[tuple[str, str, dict[str, Any], set[str]]] = [
        ("GET", "/", {}, everybody),
        ("GET", "/version", {}, everybody),
        ("GET", "/static-files/favicon.ico", {}, everybody),
        ("GET", f"/get-artifact?run_id={run.id}&path=a/b.txt", {}, everybody),
        ("GET", f"{ajax}/runs/get?run_id={run.id}", {}, everybody),
        ("GET", f"{ajax}/metrics/get-history-bulk-interval?run_ids={run.id}&metric_key=loss", {}, everybody),
        ("GET", f"{ajax}/artifacts/list?run_id={run.id}", {}, everybody),
        ("POST", f"{ajax}/runs/search", {"experiment_ids": [run.experiment]}, everybody),
        ("POST", "/graphql", {"query": '{test(inputString: "x") {output}}', "operationName": None}, everybody),
        ("POST", f"{ajax}/runs/set-tag", key, noting),
        ("POST", f"{ajax}/runs/set-tag", {**key, "key": "mlflow.note.content"}, noting),
        ("POST", f"{ajax}/runs/delete-tag", {"run_id": run.id, "key": "note"}, noting),
        ("POST", f"{ajax}/experiments/set-experiment-tag", {**key, "experiment_id": run.experiment}, noting),
        ("POST", f"{ajax}/runs/log-batch", {"run_id": run.id, "tags": [key]}, recording),
        ("POST", f"{ajax}/runs/update", {"run_id": run.id, "status": "FAILED"}, recording),
        ("POST", f"{ajax}/runs/create", {"experiment_id": run.experiment}, recording),
        ("POST", f"{ajax}/experiments/create", {"name": run.name + "-2"}, recording),
        ("PUT", file, {}, recording),
        ("DELETE", file, {}, {"admin"}),
        ("POST", f"{ajax}/experiments/update", {"experiment_id": run.experiment, "new_name": run.name}, {"admin"}),
        ("POST", f"{ajax}/runs/delete", {"run_id": run.id}, {"admin", "recorder"}),
        ("POST", f"{ajax}/runs/restore", {"run_id": run.id}, {"admin"}),
        ("POST", f"{ajax}/experiments/delete", {"experiment_id": run.experiment}, {"admin"}),
        ("POST", f"{ajax}/experiments/restore", {"experiment_id": run.experiment}, {"admin", "recorder"}),
    ]
    for method, path, body, who in table:
        options = {"json": body} if body else {"content": b"x"} if method == "PUT" else {}
        status = {role: tracking.ask(method, path, role, **options).status_code for role in (None, *ROLES)}
        assert status.pop(None) == 401, path
        assert {role for role, code in status.items() if code != 403} == who, path
        assert 200 in status.values(), path  # what cannot be done twice is 404 the second time


@pytest.mark.parametrize("role", [None, *ROLES])
def test_what_runs_programs_is_not_there_whoever_asks(tracking: Tracking, role: str | None) -> None:
    asked = [
        ("GET", "/ajax-api/3.0/mlflow/assistant/config"),
        ("PUT", "/ajax-api/3.0/mlflow/assistant/config"),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
        ("POST", "/ajax-api/3.0/mlflow/assistant/skills/install"),
        ("GET", "/ajax-api/2.0/mlflow/gateway-proxy?gateway_path=api"),
        ("POST", "/gateway/openai/v1/chat/completions"),
        ("GET", "/api/3.0/mlflow/gateway/secrets/list"),
        ("POST", "/api/2.0/mlflow/webhooks"),
        ("GET", "/api/2.0/mlflow/webhooks"),
        ("POST", "/ajax-api/3.0/mlflow/scorer/invoke"),
        ("POST", "/ajax-api/3.0/jobs/"),
        ("POST", "/v1/traces"),
    ]
    for method, path in asked:
        for written in (path, path.replace("/mlflow", "//mlflow", 1), path.replace("a", "%61"), "/." + path):
            # As it stands: httpx would tidy the path up.
            status = _raw(tracking.mlflow.port, method, written, tracking.tokens.get(role or ""))
            assert status == 404, (method, written)


def test_headers_make_no_other_request_of_one(tracking: Tracking, run: Run) -> None:
    for header in ("X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "Script-Name"):
        for value in ("DELETE", "/ajax-api/3.0/mlflow/assistant/config"):
            answer = tracking.ask("GET", "/version", "reader", headers={header: value})
            assert (answer.status_code, answer.text) == (200, "3.17.2")
    path = f"/api/2.0/mlflow/runs/get?run_id={run.id}"
    assert tracking.ask("GET", path, "reader", headers={"X-MLFLOW-WORKSPACE": "x"}).status_code == 200


def test_a_websocket_is_refused(tracking: Tracking) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    assert tracking.ask("GET", "/ajax-api/3.0/mlflow/assistant/x", "admin", headers=upgrade).status_code in (403, 404)


def test_a_submitter_does_not_write_what_the_recorder_goes_by(tracking: Tracking, run: Run) -> None:
    for key in ("barlow.job_id", "barlow.anything", "mlflow.user", "mlflow.parentRunId"):
        for method in ("set-tag", "delete-tag"):
            refused = tracking.post(f"runs/{method}", "submitter", run_id=run.id, key=key, value="2")
            assert refused.status_code == 403
            assert key in refused.json()["message"]
    twice = f'{{"run_id": "{run.id}", "key": "barlow.job_id", "value": "2", "key": "note"}}'
    assert tracking.ask("POST", "/api/2.0/mlflow/runs/set-tag", "submitter", content=twice).status_code in (200, 400)
    for odd in (b"", b"[]", b'"{}"', b'{"key": 1}', b"[" * 60_000, b"\xff"):
        refused = tracking.ask("POST", "/api/2.0/mlflow/runs/set-tag", "submitter", content=odd)
        assert refused.status_code == 403, odd[:20]
    assert _tags(tracking, run)["barlow.job_id"] == "1"


def test_mlflows_own_client_comes_with_a_token(tracking: Tracking, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    # A recorder that another test had in this process left its own there, and they would win.
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    client = MlflowClient(tracking.mlflow.url)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", tracking.tokens["reader"])
    assert client.get_run(run.id).data.metrics == {"loss": 1.5}
    assert [file.path for file in client.list_artifacts(run.id, "a")] == ["a/b.txt"]
    with pytest.raises(MlflowException, match="takes the role submitter"):
        client.set_tag(run.id, "seen", "yes")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", tracking.tokens["submitter"])
    client.set_tag(run.id, "seen", "yes")
    with pytest.raises(MlflowException, match="takes the role admin"):
        client.delete_run(run.id)
    with pytest.raises(MlflowException, match="only the recorder"):
        client.log_batch(run.id, params=[Param("width", "1")])
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", tracking.tokens["admin"])
    client.delete_run(run.id)
    client.restore_run(run.id)
    assert client.get_run(run.id).data.tags["seen"] == "yes"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "barlow_" + 43 * "x")
    with pytest.raises(MlflowException, match="MLFLOW_TRACKING_TOKEN"):
        client.get_run(run.id)
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anybody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", tracking.tokens["reader"])
    assert client.get_run(run.id).info.run_id == run.id


def test_a_revoked_token_is_out_within_seconds(tracking: Tracking) -> None:
    made = httpx.post(f"{tracking.api}/api/v1/tokens", json={"name": "short", "role": "reader"}, headers=bearer(ADMIN))
    tracking.tokens["short"] = made.json()["secret"]
    assert tracking.ask("GET", "/version", "short").status_code == 200
    httpx.delete(f"{tracking.api}/api/v1/tokens/short", headers=bearer(ADMIN)).raise_for_status()
    wait_until(lambda: tracking.ask("GET", "/version", "short").status_code == 401, 30)


def test_names_and_pages(tracking: Tracking, run: Run) -> None:
    host = f"127.0.0.1:{tracking.mlflow.port}"
    refused = tracking.ask("GET", "/", "admin", headers={"Host": "evil.example.org"})
    assert refused.status_code == 421
    assert "BARLOW_MLFLOW_HOSTS" in refused.json()["message"]
    body = {"run_id": run.id, "key": "note", "value": "x"}
    for headers, status in (
        ({"Origin": f"http://{host}"}, 200),
        ({"Origin": f"http://localhost:{tracking.mlflow.port}"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": f"http://{host}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ):
        for path in ("runs/set-tag", "runs/search"):
            sent = body if path == "runs/set-tag" else {"experiment_ids": [run.experiment]}
            url = f"/ajax-api/2.0/mlflow/{path}"
            assert tracking.ask("POST", url, "submitter", headers=headers, json=sent).status_code == status
    assert (
        "access-control-allow-origin" not in tracking.ask("GET", "/", "reader", headers={"Origin": "http://x"}).headers
    )


def test_answers_carry_the_headers_that_browsers_heed(tracking: Tracking) -> None:
    for role in (None, "reader"):
        headers = tracking.ask("GET", "/", role, headers={"Accept": "text/html"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors" in headers["content-security-policy"]


def test_a_stranger_with_a_browser_sees_how_to_come_in(tracking: Tracking) -> None:
    page = tracking.ask("GET", "/", headers={"Accept": "text/html,*/*"})
    assert page.status_code == 401
    assert "barlow open" in page.text
    assert "basic" not in page.headers.get("www-authenticate", "").lower()


def test_a_large_body_of_a_reader_is_refused(tracking: Tracking) -> None:
    large = {"experiment_ids": ["0"], "filter": "x" * 1_100_000}
    assert tracking.post("runs/search", "reader", **large).status_code == 413


def test_its_process_has_a_home_of_its_own_and_nothing_of_yours(tracking: Tracking) -> None:
    process = psutil.Process(tracking.mlflow.child.pid)
    home = tracking.mlflow.directory / "mlflow-home"
    assert process.cwd() == str(home.resolve())
    assert home.stat().st_mode & 0o777 == 0o700


def _ok(answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    said: dict[str, Any] = answer.json()
    return said


def _tags(tracking: Tracking, run: Run) -> dict[str, str]:
    found = _ok(tracking.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run.id}", "reader"))
    return {tag["key"]: tag["value"] for tag in found["run"]["data"]["tags"]}


def _raw(port: int, method: str, path: str, token: str | None) -> int:
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{bearer}Content-Length: 0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode())
        return int(connection.makefile("rb").readline().split()[1])
