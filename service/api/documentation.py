"""/docs: the OpenAPI document as a page to read and to try. All of it is served from here: nothing of it, and nothing
that it asks for, goes to the internet."""

from __future__ import annotations

import json
import secrets
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from service.api.problems import Problem

PATH = "/docs"
_KEPT_SECONDS = 3600
# Swagger UI, as the distribution fastapi-offline carries it.
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_OPTIONS = {
    "url": "/openapi.json",
    "dom_id": "#swagger-ui",
    "deepLinking": True,
    # Else it may send the document's address to a validator on the internet.
    "validatorUrl": None,
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Barlow Lab: API</title>
<link rel="icon" type="image/png" href="{path}/favicon.png">
<link rel="stylesheet" href="{path}/swagger-ui.css" nonce="{nonce}">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{path}/swagger-ui-bundle.js" nonce="{nonce}"></script>
<script nonce="{nonce}">SwaggerUIBundle({options})</script>
</body>
</html>
"""

router = APIRouter(include_in_schema=False)


def _policy(nonce: str) -> str:
    # data: are the icons in the style sheet. What is tried out asks this API and nobody else.
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@router.get(PATH)
async def documentation() -> HTMLResponse:
    """The page. Its scripts and styles are those with the nonce of this answer, and no others run."""
    nonce = secrets.token_urlsafe(16)
    page = _PAGE.format(path=PATH, nonce=nonce, options=json.dumps(_OPTIONS))
    return HTMLResponse(page, headers={"Content-Security-Policy": _policy(nonce)})


@router.get(PATH + "/{asset}")
def documentation_asset(asset: str) -> Response:
    """What the page is made of.

    Raises:
        Problem: 404.
    """
    if asset not in _ASSETS:
        raise Problem("not-found", f"there is no page {PATH}/{asset}; {PATH} is one")
    kept = {"Cache-Control": f"public, max-age={_KEPT_SECONDS}"}
    return Response(_read(asset), media_type=_ASSETS[asset], headers=kept)


@cache
def _read(asset: str) -> bytes:
    return files("fastapi_offline").joinpath("static", asset).read_bytes()
