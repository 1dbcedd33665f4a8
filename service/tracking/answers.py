"""What is said instead of MLflow: to programs in its own form of errors, so that its client shows the words; to people
as a page."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from hashlib import sha256
from http import HTTPStatus
from typing import NamedTuple

from starlette.types import Send

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.3rem}button{font:inherit;padding:.5rem 1.2rem;cursor:pointer}code{background:#eee;padding:0 .3em}"
)
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_CODES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "ENDPOINT_NOT_FOUND", 503: "TEMPORARILY_UNAVAILABLE"}


class Answer(NamedTuple):
    """A short answer of ours."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]]

    async def send(self, send: Send, *, head: bool = False) -> None:
        """Send it; with `head` without its body."""
        length = (b"content-length", str(len(self.body)).encode())
        start = {"type": "http.response.start", "status": self.status, "headers": [*self.headers, length]}
        await send(start)
        await send({"type": "http.response.body", "body": b"" if head else self.body})


def error(status: int, words: str, *headers: tuple[bytes, bytes]) -> Answer:
    """An error as MLflow words them."""
    code = _CODES.get(status, HTTPStatus(status).name)
    body = json.dumps({"error_code": code, "message": words}).encode()
    return Answer(status, body, [(b"content-type", b"application/json"), *headers])


def page(status: int, title: str, *paragraphs: str, form: str = "") -> Answer:
    """A page of ours, which needs no script; `form` is HTML, all else is text, in which `code` stands in backquotes."""
    said = "".join(f"<p>{_marked(text)}</p>" for text in paragraphs)
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="robots" content="noindex">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{said}{form}"
    )
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _POLICY.encode()),
        # Not no-referrer: a browser would send `Origin: null` with the page's form then.
        (b"referrer-policy", b"strict-origin"),
    ]
    return Answer(status, text.encode(), headers)


def see_other(target: str, *headers: tuple[bytes, bytes]) -> Answer:
    """Send a browser on to an address of this server."""
    return Answer(303, b"", [(b"location", target.encode()), *headers])


def _marked(text: str) -> str:
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))
