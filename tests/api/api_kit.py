"""What the tests of the API share: a small spec and how to read a problem answer."""

from __future__ import annotations

from typing import Any

import httpx

PRETRAIN: dict[str, Any] = {
    "kind": "pretrain",
    "data": {"name": "textures"},
    "views": {"preset": "small_images", "size": 32},
    "backbone": {"name": "tiny"},
    "projector": {"widths": [128, 64]},
    "epochs": 2,
    "batch_size": 100,
}


def faults_of(response: httpx.Response) -> dict[str, str]:
    """Faults of a problem answer by pointer or parameter."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert body["status"] == response.status_code
    return {e.get("pointer", e.get("parameter")): e["message"] for e in body["errors"]}
