"""What stands between the API and browsers: names and origins, the headers of every answer, pages of other origins."""

from __future__ import annotations

from fastapi import Request
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Scope

from service.api.problems import Problem, answer
from service.settings import Settings
from service.web.guarding import CheckOrigin, SecureAnswers
from service.web.origins import FORBIDDEN, MISDIRECTED, Refusal, TrustedNames, read_hosts, read_origins

_CODES = {MISDIRECTED: "unknown-host", FORBIDDEN: "foreign-page"}
_PREFLIGHT_SECONDS = 600


def guard(app: ASGIApp, settings: Settings) -> ASGIApp:
    """`app`, which never sees what a name that is not ours, or a page that is not ours, asks."""
    if origins := read_origins(settings.cors_origins, "BARLOW_CORS_ORIGINS"):
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            # A token is sent by the page that has it; there is nothing that a browser would add by itself.
            allow_credentials=False,
            # A page on the internet that is listed is meant to reach this network.
            allow_private_network=True,
            allow_headers=("Authorization", "Idempotency-Key", "Last-Event-ID"),
            expose_headers=("Location", "Idempotency-Replayed", "Retry-After", "WWW-Authenticate"),
            max_age=_PREFLIGHT_SECONDS,
        )
    return SecureAnswers(CheckOrigin(app, names(settings), _answer))


def names(settings: Settings) -> TrustedNames:
    """The names that the API answers to, and which pages may have it change something."""
    return TrustedNames.of(
        "BARLOW_ALLOWED_HOSTS",
        "BARLOW_PUBLIC_URL",
        "BARLOW_CORS_ORIGINS",
        hosts=[*read_hosts(settings.allowed_hosts, "BARLOW_ALLOWED_HOSTS"), settings.api_host],
        urls=[settings.public_url],
        others=read_origins(settings.cors_origins, "BARLOW_CORS_ORIGINS"),
    )


def _answer(scope: Scope, refusal: Refusal) -> ASGIApp:
    # A body that came along stays unread, so the connection cannot be used again.
    problem = Problem(_CODES.get(refusal.status, "bad-request"), refusal.words, headers={"Connection": "close"})
    return answer(Request(scope), problem)
