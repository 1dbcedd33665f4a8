"""Jobs over HTTP: submit, show, list, cancel."""

from __future__ import annotations

import httpx
from api_kit import PRETRAIN


def test_a_job_is_submitted_and_shown(api: httpx.Client) -> None:
    made = api.post("/jobs", json={**PRETRAIN, "name": "first", "run": {"labels": {"who": "me"}}})
    assert made.status_code == 201, made.text
    job = made.json()
    assert job["state"] == "queued"
    assert made.headers["Location"] == job["links"]["self"]
    shown = api.get(f"http://barlow{made.headers['Location']}").json()
    assert shown["name"] == "first"
    assert shown["experiment"] == "default"
    assert shown["labels"] == {"who": "me"}
    assert shown["place"] == 1
    assert shown["spec"]["objective"]["lambda"] == 0.0051
    assert len(shown["spec_digest"]) == 64
    assert shown["recording"] == {"postgres": "pending", "mlflow": "off"}
    events = api.get(f"/jobs/{job['id']}/events").json()["items"]
    assert [(e["seq"], e["kind"], e["actor"]) for e in events] == [(1, "submitted", "anonymous")]
