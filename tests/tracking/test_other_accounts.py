"""What is at loopback ports need not be ours: before a secret goes there, the kernel is asked whose it is."""

from __future__ import annotations

import secrets

import httpx
from api_kit import bearer
from rights import OTHER, needs_root, thief
from tracking_kit import port_of_api

from service.local.servers import Mlflow


@needs_root
def test_the_gate_asks_no_api_of_another_account_whose_token_it_was_given(mlflow: Mlflow) -> None:
    with thief(port_of_api(mlflow)) as other:
        answer = httpx.get(f"{mlflow.url}/version", headers=bearer(secrets.token_urlsafe(32)), timeout=30)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert f"port {other.port} of 127.0.0.1 is taken by another account (user id {OTHER})" in answer.text
        assert other.heard() == set()
