"""MLflow behind the gate as tests ask it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx
from api_kit import bearer

from service import outgoing_http
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
        with outgoing_http.client(self.mlflow.url, headers=headers, timeout=30) as client:
            return client.request(method, self.mlflow.url + path, **options)

    def post(self, method: str, role: str, **body: Any) -> httpx.Response:
        """A call of MLflow's API."""
        return self.ask("POST", f"/api/2.0/mlflow/{method}", role, json=body)


def port_of_api(mlflow: Mlflow) -> int:
    """Where an API is to listen that this MLflow asks."""
    port = httpx.URL(mlflow.api_url).port
    assert port is not None
    return port


def link(tracking: Tracking, role: str = "reader") -> str:
    """A fresh link, without the server's address."""
    made = httpx.post(f"{tracking.api}/api/v1/entries", headers=bearer(tracking.tokens[role]))
    return str(made.raise_for_status().json()["url"]).removeprefix(tracking.mlflow.url)


def press(browser: httpx.Client, page: httpx.Response) -> httpx.Response:
    """Press the page's button, as a browser does."""
    form = re.search(r'<form method="post" action="([^"]+)">(.*?)</form>', page.text)
    assert form, page.text
    fields = dict(re.findall(r'name="([^"]+)" value="([^"]+)"', form[2]))
    return browser.post(form[1], data=fields)


def come_in(tracking: Tracking, browser: httpx.Client, role: str = "reader") -> httpx.Response:
    done = press(browser, browser.get(link(tracking, role)))
    assert done.status_code == 303, done.text
    return done


def new_run(tracking: Tracking, experiment: str) -> str:
    """The id of a new run of an experiment."""
    made = tracking.post("runs/create", "recorder", experiment_id=experiment, start_time=1)
    return str(made.raise_for_status().json()["run"]["info"]["run_id"])


def stage(tracking: Tracking, run: str) -> str:
    """Whether a run is active or deleted."""
    path = f"/api/2.0/mlflow/runs/get?run_id={run}"
    found = tracking.ask("GET", path, "recorder").raise_for_status().json()
    return str(found["run"]["info"]["lifecycle_stage"])
