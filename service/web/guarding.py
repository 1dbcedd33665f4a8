"""The same of every answer and before every request, as ASGI middleware."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.web.origins import Refusal, TrustedNames

NO_PAGE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy of what is no page: where a browser shows it all the same, it runs and loads nothing."""

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": NO_PAGE,
    # Most answers are for the one who asked: a proxy or a browser's disk is to keep none that does not say it may.
    "Cache-Control": "no-store",
}


class SecureAnswers:
    """Every answer carries the headers that browsers heed. Those that the application set itself stand."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, secured if scope["type"] == "http" else send)


class CheckOrigin:
    """Refuses what another name, or another site's page, asks. The application does not see it."""

    def __init__(self, app: ASGIApp, names: TrustedNames, answer: Callable[[Scope, Refusal], ASGIApp]) -> None:
        """`answer` makes a refusal's answer, in the application's own form."""
        self.app = app
        self._names = names
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._names.refusal(scope)
            if refusal is not None:
                await self._answer(scope, refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)
