"""MLflow behind the gate as tests ask it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from api_kit import bearer

from service.local.servers import Mlflow


@dataclass
class Tracking:
    """MLflow, the API that its gate asks, and a token of each role."""

    mlflow: Mlflow
    api: str
    tokens: dict[str, str]

    def ask(self, method: str, path: str, role: str | None = None, **options: Any) -> httpx.Response:
        """A request to MLflow as somebody of this role; None: as nobody."""
        headers = {**(bearer(self.tokens[role]) if role else {}), **options.pop("headers", {})}
        return httpx.request(method, self.mlflow.url + path, headers=headers, timeout=30, **options)

    def post(self, method: str, role: str, **body: Any) -> httpx.Response:
        """A call of MLflow's API."""
        return self.ask("POST", f"/api/2.0/mlflow/{method}", role, json=body)


def port_of_api(mlflow: Mlflow) -> int:
    """Where an API is to listen that this MLflow asks."""
    port = httpx.URL(mlflow.api_url).port
    assert port is not None
    return port
