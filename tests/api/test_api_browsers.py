"""The API and browsers: names it answers to, pages that may write, the headers of every answer, pages of its own."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import httpx
import pytest
from api_kit import ADMIN, PRETRAIN, bearer, guarded
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.app import create_app
from service.client.api import Client
from service.client.connection import ApiError
from service.settings import Settings

ROOT = "http://localhost:8000"
PAGES = "https://pages.example.org"
JOBS, WHOAMI = f"{ROOT}/api/v1/jobs", f"{ROOT}/api/v1/whoami"
NOBODY = Settings(database_url="postgresql://nobody@127.0.0.1:1/none")
SECURE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

InProcess = Callable[[Settings], AbstractContextManager[httpx.Client]]


@pytest.fixture
def alone(in_process: InProcess) -> Iterator[httpx.Client]:
    """A client of an API whose run database is away: what is said here comes before it is asked."""
    with in_process(NOBODY) as client:
        yield client


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")


def every_operation() -> list[tuple[str, str]]:
    """Method and a path of everything the API serves; nothing is there."""
    found = iter_route_contexts(create_app(NOBODY).routes)
    routes = [(method, str(route.path)) for route in found for method in sorted(route.methods or ())]
    return [(method, re.sub(r"\{[^}]*\}", "7", path)) for method, path in routes]


@pytest.mark.parametrize("asked", [NOBODY, guarded(NOBODY)], ids=["open", "guarded"])
def test_no_operation_is_reached_by_another_name(in_process: InProcess, asked: Settings) -> None:
    with in_process(asked) as client:
        for method, path in every_operation():
            answer = client.request(method, ROOT + path, headers={"Host": "evil.example:8000", **bearer(ADMIN)})
            assert answer.status_code == 421, path
            assert answer.headers["Connection"] == "close"
            if method != "HEAD":
                assert problem(answer) == (421, "unknown-host")
                assert "BARLOW_ALLOWED_HOSTS" in answer.json()["detail"]
                assert "'evil.example'" in answer.json()["detail"]


def test_names_of_the_settings_are_answered_to(in_process: InProcess) -> None:
    named = NOBODY.model_copy(
        update={
            "allowed_hosts": "api, gpu-1", "api_host": "host.lan", "public_url": "https://lab.example.org/",
            "cors_origins": PAGES,
        }
    )  # fmt: skip
    with in_process(named) as client:
        for host in (
            "localhost",
            "127.0.0.1:9",
            "[::1]:8000",
            "10.1.2.3",
            "api:8000",
            "GPU-1",
            "host.lan:1",
            "lab.example.org",
        ):
            assert client.get(f"{ROOT}/healthz", headers={"Host": host}).status_code == 200, host
        for host in ("example.org", "pages.example.org"):
            assert problem(client.get(f"{ROOT}/healthz", headers={"Host": host})) == (421, "unknown-host"), host


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
@pytest.mark.parametrize("asked", [NOBODY, guarded(NOBODY)], ids=["open", "guarded"])
def test_no_page_of_another_site_writes(in_process: InProcess, asked: Settings, headers: dict[str, str]) -> None:
    with in_process(asked) as client:
        for method, path in every_operation():
            answer = client.request(method, ROOT + path, headers={**headers, **bearer(ADMIN)})
            if method in ("GET", "HEAD", "OPTIONS"):
                assert answer.status_code != 403, path
            else:
                assert problem(answer) == (403, "foreign-page"), path


def test_a_page_of_its_own_writes_also_behind_a_proxy_that_ends_tls(in_process: InProcess) -> None:
    public = NOBODY.model_copy(update={"public_url": "https://lab.example.org"})
    behind = {"Host": "lab.example.org", "Origin": "https://lab.example.org", "Sec-Fetch-Site": "same-origin"}
    with in_process(public) as client:
        assert client.post(JOBS, headers=behind).status_code == 415, "it is read"
        assert client.post(JOBS, headers={"Origin": ROOT}).status_code == 415
    named = NOBODY.model_copy(update={"allowed_hosts": "lab.example.org"})
    with in_process(named) as client:
        refused = client.post(JOBS, headers=behind)
        assert problem(refused) == (403, "foreign-page")
        assert "BARLOW_PUBLIC_URL" in refused.json()["detail"]


def test_every_answer_carries_the_headers(database: Settings, in_process: InProcess) -> None:
    with in_process(database) as client:
        job = client.post("/jobs", json=PRETRAIN).json()["id"]
        answers = [
            client.get("/jobs"),
            client.get(f"/jobs/{job}/events", params={"follow": "false"}, headers={"Accept": "text/event-stream"}),
            client.get(f"/jobs/{job}/logs"),
            client.get("/recipes/demo"),
            client.get("/nothing"),
            client.delete("/jobs"),
            client.post("/jobs", json={}),
            client.get("/jobs/%00"),
            *(client.get(f"http://barlow{path}") for path in ("/", "/healthz", "/readyz", "/metrics", "/openapi.json")),
            *(
                client.get(f"http://barlow{path}")
                for path in ("/docs", "/docs/swagger-ui.css", "/problems", "/problems/x")
            ),
            client.get("http://other/"),
            client.post("/jobs", headers={"Origin": "null"}),
        ]
    for answer in answers:
        for name, value in SECURE.items():
            assert answer.headers[name] == value, answer.request.url
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        asset = answer.request.url.path == "/docs/swagger-ui.css"
        assert (answer.headers["Cache-Control"] == "no-store") != asset, answer.request.url
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_bug_carries_them_too(database: Settings) -> None:
    import asyncio

    app = create_app(database)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ROOT) as client:
            return await client.get("/broken")

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert {name: answer.headers[name] for name in SECURE} == SECURE


def test_the_documentation_comes_from_here_alone(alone: httpx.Client) -> None:
    first, second = alone.get(f"{ROOT}/docs"), alone.get(f"{ROOT}/docs")
    assert "//" not in first.text, "no address of another server"
    policy = dict(part.split(" ", 1) for part in first.headers["Content-Security-Policy"].split("; "))
    nonce = re.fullmatch(r"'nonce-([\w-]{20,})'", policy["script-src"])
    assert nonce is not None
    assert nonce[1] not in second.text
    assert policy["style-src"] == policy["script-src"]
    assert policy["connect-src"] == "'self'"
    scripts, styles = (
        re.findall(r"<script[^>]*>", first.text),
        re.findall(r"<link rel=\"stylesheet\"[^>]*>", first.text),
    )
    assert len(scripts) == 2
    assert len(styles) == 1
    assert all(f'nonce="{nonce[1]}"' in tag for tag in (*scripts, *styles))
    assert not re.search(r"\son\w+=|javascript:|\sstyle=", first.text)
    kinds = {"js": "text/javascript", "css": "text/css", "png": "image/png"}
    loaded = re.findall(r'(?:src|href)="([^"]+)"', first.text)
    assert len(loaded) == 3
    for path in loaded:
        assert urlsplit(path).netloc == ""
        asset = alone.get(ROOT + path)
        assert asset.status_code == 200
        assert asset.headers["content-type"].split(";")[0] == kinds[path.rpartition(".")[2]]
    assert "SwaggerUIBundle" in alone.get(f"{ROOT}/docs/swagger-ui-bundle.js").text
    for path in ("/docs/redoc.standalone.js", "/docs/..%2f__init__.py", "/redoc", "/docs/oauth2-redirect"):
        assert problem(alone.get(ROOT + path)) == (404, "not-found")


def test_pages_of_ours_hold_no_script(alone: httpx.Client) -> None:
    for path in ("/problems", "/problems/forbidden"):
        page = alone.get(ROOT + path)
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; base-uri 'none'")
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=|://", page.text)


def test_pages_elsewhere_may_ask_once_they_are_listed(in_process: InProcess) -> None:
    preflight = {
        "Origin": PAGES,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
        "Access-Control-Request-Private-Network": "true",
        "Sec-Fetch-Site": "cross-site",
    }
    with in_process(guarded(NOBODY)) as client:
        off = client.options(JOBS, headers=preflight)
        assert problem(off) == (403, "foreign-page")
        assert "BARLOW_CORS_ORIGINS" in off.json()["detail"]
        assert "Access-Control-Allow-Origin" not in client.get(WHOAMI, headers={"Origin": PAGES}).headers
    with in_process(guarded(NOBODY.model_copy(update={"cors_origins": f"{PAGES},http://localhost:3000"}))) as client:
        allowed = client.options(JOBS, headers=preflight)
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == PAGES
        assert "POST" in allowed.headers["Access-Control-Allow-Methods"]
        assert "authorization" in allowed.headers["Access-Control-Allow-Headers"].lower()
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        for status, sent in ((200, bearer(ADMIN)), (401, {})):
            answer = client.get(WHOAMI, headers={"Origin": PAGES, "Sec-Fetch-Site": "cross-site", **sent})
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == PAGES
            assert "Origin" in answer.headers["Vary"]
        written = client.post(JOBS, headers={"Origin": PAGES, "Sec-Fetch-Site": "cross-site", **bearer(ADMIN)})
        assert written.status_code == 415, "it is read"
        for other in ("http://pages.example.org", "https://pages.example.org:8443", "https://evil.example", "null"):
            assert problem(client.options(JOBS, headers={**preflight, "Origin": other})) == (403, "foreign-page")
            assert "Access-Control-Allow-Origin" not in client.get(WHOAMI, headers={"Origin": other}).headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_hosts", "http://lab"),
        ("allowed_hosts", "*"),
        ("cors_origins", "*"),
        ("cors_origins", "lab.example.org"),
        ("public_url", "lab.example.org"),
        ("trusted_proxies", "*"),
        ("trusted_proxies", "proxy"),
    ],
)
def test_a_setting_that_cannot_be_meant_so_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"BARLOW_{name.upper()}"):
        Settings(database_url="postgresql://nobody@127.0.0.1:1/none", **{name: value})  # type: ignore[arg-type]


def test_the_client_says_what_to_do_about_a_name(server: str) -> None:
    with Client(server, transport=_Named("lab.example.org")) as client, pytest.raises(ApiError) as caught:
        client.whoami()
    assert "BARLOW_ALLOWED_HOSTS" in str(caught.value)
    assert server in str(caught.value)


class _Named(httpx.HTTPTransport):
    """Sends requests under another name, as one whose own resolver has it lead here."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Host"] = self._name
        return super().handle_request(request)


HOST = b"Host: localhost\r\n"
END = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /healthz HTTP/1.1\r\n" + END,
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + HOST + END,
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\n" + END,
        b"GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n" + END,
        b"GET /healthz HTTP/1.1\r\nHost: l\xf6calhost\r\n" + END,
        b"GET /healthz HTTP/1.1\r\nHost: [::1\r\n" + END,
        b"GET /healthz HTTP/1.1\r\nHost: localhost:99999\r\n" + END,
        b"GET /api/v1/jobs/x/events HTTP/1.1\r\n" + HOST + b"Last-Event-ID: \xff\r\nX-Page-Token: \x80\r\n" + END,
        b"POST /api/v1/jobs HTTP/1.1\r\n" + HOST + b"Origin: \xff\xfe\r\n" + END,
        b"POST /api/v1/jobs HTTP/1.1\r\n" + HOST + b"Idempotency-Key: \xff\r\nContent-Type: \xff\r\n" + END,
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + 1_000_000 * b"a" + b"\r\n" + END,
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: y\r\n" % i for i in range(50_000)) + END,
        b"GET /" + 200_000 * b"a" + b" HTTP/1.1\r\n" + HOST + END,
        b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + END,
        b"GET /%ff%fe/%1b[31m HTTP/1.1\r\n" + HOST + END,
        b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + END,
        b"TRACE / HTTP/1.1\r\n" + HOST + END,
        b"OPTIONS * HTTP/1.1\r\n" + HOST + END,
        b"FROB /api/v1/jobs HTTP/1.1\r\n" + HOST + END,
        b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"POST /api/v1/jobs HTTP/1.1\r\n" + HOST + b"Content-Length: -4\r\n\r\n",
        b"POST /api/v1/jobs HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=lambda sent: ascii(sent[:60]),
)  # fmt: skip
def test_nothing_that_is_sent_is_a_server_error(server: str, request_bytes: bytes) -> None:
    """Answered with what is wrong with it, or, when more of it comes than is read, cut off; and the API lives on."""
    where = urlsplit(server)
    assert where.hostname is not None
    assert where.port is not None
    heard = b""
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        try:
            connection.sendall(request_bytes)
            while part := connection.recv(65536):
                heard += part
        except (ConnectionResetError, BrokenPipeError):
            assert len(request_bytes) > 65536
    if heard:
        assert re.match(rb"HTTP/1\.1 4\d\d ", heard), heard[:200]
    else:
        assert len(request_bytes) > 65536
    assert httpx.get(f"{server}/healthz").status_code == 200


BYTES = st.binary(max_size=12).map(lambda raw: raw.translate(None, b"\r\n\0"))
READ_BY_US = ("Last-Event-ID", "Idempotency-Key", "Content-Type", "Accept", "Authorization", "Origin", "Sec-Fetch-Site")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operation=st.sampled_from(every_operation()), name=st.sampled_from(READ_BY_US), value=BYTES, path=BYTES)
def test_no_header_and_no_path_is_a_server_error(
    api: httpx.Client, operation: tuple[str, str], name: str, value: bytes, path: bytes
) -> None:
    method, known = operation
    if known == "/readyz":
        return  # its 503 says what is not there
    for where in (known, known.replace("7", quote_from_bytes(path) or "7")):
        answer = api.request(method, f"http://barlow{where}", headers={name: value})
        assert answer.status_code < 500, (where, answer.text)


def test_what_a_proxy_says_is_believed_of_those_that_are_listed_alone(
    served: Settings, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api_kit import run_server

    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    said: dict[str, Any] = {"X-Forwarded-Proto": "https", "Host": "localhost", "Origin": "https://localhost"}
    for believed in (False, True):
        lent = served.model_copy(update={"trusted_proxies": "127.0.0.0/8"}) if believed else served
        with run_server(lent, tmp_path_factory.mktemp("server")) as address:
            answer = httpx.post(f"{address}/api/v1/jobs", headers=said)
        assert answer.status_code == (415 if believed else 403)
