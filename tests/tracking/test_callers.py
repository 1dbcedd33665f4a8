"""What counts as a token, and what the gate says when the API looks at none for a while."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import httpx
import pytest

from service.tracking.browser_login import BrowserLogin
from service.tracking.callers import Callers, token_in
from service.tracking.gate import Gate
from service.web.origins import TrustedNames

TOKEN = "barlow_" + 43 * "x"
MALFORMED = [
    b"",
    b" ",
    b"Bearer",
    b"Bearer  ",
    b"Bearer\t" + TOKEN.encode(),
    b"Bearer a b",
    b"Bearer \xff\xfe",
    b"Bearer " + "tök".encode(),
    b"Bearer " + 5000 * b"x",
    b"Digest " + TOKEN.encode(),
    TOKEN.encode(),
    b"Basic",
    b"Basic *",
    b"Basic \xff",
    b"Basic " + b64encode(b"x:\xff"),
    b"Basic " + b64encode(b"x:"),
    b"Basic " + b64encode(b"x:a\r\nX-Other: 1"),
    b"Basic " + b64encode("x:tök".encode()),
]


async def _asked(api: Any, *authorization: bytes, method: str = "GET") -> tuple[int, dict[str, str]]:
    """The gate's answer to a request, with an API that answers as `api` does."""

    async def nothing(*_: Any) -> None:
        raise AssertionError("MLflow is not reached")

    async with httpx.AsyncClient(transport=httpx.MockTransport(api), trust_env=False) as client:
        callers = Callers("http://127.0.0.1:1", 43 * "r", client)
        names = TrustedNames.of("HOSTS", "URL", hosts=[], urls=[])
        gate = Gate(nothing, names, callers, BrowserLogin(callers, None), client.aclose)
        headers = [(b"host", b"127.0.0.1"), *((b"authorization", said) for said in authorization)]
        scope = {"type": "http", "method": method, "path": "/version", "headers": headers, "query_string": b""}
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await gate(scope, nothing, send)
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize("authorization", MALFORMED, ids=lambda value: repr(value)[:40])
def test_a_header_that_holds_no_token_is_refused_as_one_that_is_unknown(authorization: bytes) -> None:
    def api(request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        return httpx.Response(401)

    assert asyncio.run(_asked(api, authorization))[0] == 401


def test_a_token_is_found_as_bearer_and_as_the_password_of_basic() -> None:
    for said in (f"Bearer {TOKEN}", f"bearer   {TOKEN} ", "Basic " + b64encode(f"any:{TOKEN}".encode()).decode()):
        assert token_in(said) == TOKEN


@pytest.mark.parametrize("said", ["<html>", "[]", "{}", '{"name": "x"}', '{"name": "x", "role": "king"}'])
@pytest.mark.parametrize("headers", [b"Bearer " + TOKEN.encode(), None])
def test_what_is_not_the_api_lets_nobody_in(said: str, headers: bytes | None) -> None:
    """At an address that was given wrongly, or whose port is another program's now."""
    status, answer = asyncio.run(_asked(lambda _: httpx.Response(200, text=said), *filter(None, [headers])))
    assert (status, answer["retry-after"]) == (503, "5")


@pytest.mark.parametrize("seconds", ["7", None])
def test_while_the_api_looks_at_no_token_the_gate_says_when_to_come_again(
    seconds: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    def api(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={} if seconds is None else {"Retry-After": seconds})

    status, headers = asyncio.run(_asked(api, f"Bearer {TOKEN}".encode()))
    assert (status, headers["retry-after"]) == (429, seconds or "1")
    assert caplog.text == "", "a line for each would fill the log of who asked for none"
