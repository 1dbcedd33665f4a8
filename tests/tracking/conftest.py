"""MLflow behind the gate, an API with tokens of every role that it asks, and a browser to look at pages with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, bearer, guarded, run_server
from chromium import chromium_in
from playwright.sync_api import Page
from running_stack import wait_until
from tracking_kit import Tracking, port_of_api

from service.local.servers import Mlflow
from service.settings import Settings


@pytest.fixture(scope="module")
def tracking(mlflow: Mlflow, served: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """The MLflow of this test process, and a guarded API where it asks."""
    settings = guarded(served).model_copy(update={"mlflow_public_url": mlflow.url})
    with run_server(settings, tmp_path_factory.mktemp("api"), port=port_of_api(mlflow)) as api:
        version = f"{mlflow.url}/version"
        wait_until(lambda: httpx.get(version, headers=bearer(ADMIN)).status_code == 200, 30)
        yield Tracking(mlflow, api, {"admin": ADMIN, "recorder": mlflow.token, **_made(api)})


@pytest.fixture
def browser(tracking: Tracking) -> Iterator[httpx.Client]:
    """A browser: it keeps cookies, follows nothing by itself, and says whose page a write is of."""
    headers = {"Accept": "text/html", "Origin": tracking.mlflow.url}
    with httpx.Client(base_url=tracking.mlflow.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The Chromium of the system."""
    with chromium_in(tmp_path_factory.mktemp("chromium")) as context:
        yield context


@pytest.fixture
def page(chromium: Any) -> Iterator[Page]:
    """A page of it."""
    page = chromium.new_page()
    yield page
    page.close()


def _made(api: str) -> dict[str, str]:
    made = {}
    for role in ("reader", "submitter"):
        answer = httpx.post(f"{api}/api/v1/tokens", json={"name": role, "role": role}, headers=bearer(ADMIN))
        made[role] = answer.raise_for_status().json()["secret"]
    return made
