"""What the tests of the API share: a small spec and how to read a problem answer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from service.settings import Settings

PRETRAIN: dict[str, Any] = {
    "kind": "pretrain",
    "data": {"name": "textures"},
    "views": {"preset": "small_images", "size": 32},
    "backbone": {"name": "tiny"},
    "projector": {"widths": [128, 64]},
    "epochs": 2,
    "batch_size": 100,
}

ADMIN = "barlow_the-bootstrap-token-of-the-tests-0123456789abcd"
"""A bootstrap token, of the form that made ones have."""

KNN: dict[str, Any] = {"kind": "knn", "data": {"name": "textures"}, "images": {"size": 32, "resize": 32}}


def faults_of(response: httpx.Response) -> dict[str, str]:
    """Faults of a problem answer by pointer or parameter."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert body["status"] == response.status_code
    return {e.get("pointer", e.get("parameter")): e["message"] for e in body["errors"]}


def guarded(settings: Settings) -> Settings:
    """The same settings with a bootstrap token: requests need one."""
    return settings.model_copy(update={"admin_token": SecretStr(ADMIN)})


def bearer(secret: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {secret}"}


@contextmanager
def run_server(settings: Settings, folder: Path, port: int = 0) -> Iterator[str]:
    """`python -m service.api`, on a free port unless one is named; the address it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BARLOW_")}
    environment = clean | {
        "BARLOW_DATABASE_URL": settings.database_url.get_secret_value(),
        "BARLOW_REDIS_URL": settings.redis_url.get_secret_value(),
        "BARLOW_RUNS_DIR": str(settings.runs_dir),
        "BARLOW_TRUSTED_PROXIES": settings.trusted_proxies,
    }
    if settings.mlflow_public_url is not None:
        environment["BARLOW_MLFLOW_PUBLIC_URL"] = settings.mlflow_public_url
    if settings.admin_token is not None:
        environment["BARLOW_ADMIN_TOKEN"] = settings.admin_token.get_secret_value()
    command = [sys.executable, "-m", "service.api", "--port", str(port)]
    with (folder / "api.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Barlow Lab API: http://127.0.0.1:"), (folder / "api.log").read_text()
        yield line.split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=20)


class InProcess(httpx.BaseTransport):
    """Asks an ASGI app from synchronous code; an exception that no handler turns into an answer fails the test."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=True)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            response = await self._inner.handle_async_request(request)
            content = b"".join([part async for part in response.stream])
            return httpx.Response(response.status_code, headers=response.headers, content=content)

        return asyncio.run(ask())
