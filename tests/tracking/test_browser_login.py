"""A person's way in with a browser: the link, its page, the button, the cookie, and the way out."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from api_kit import ADMIN, bearer
from running_stack import wait_until
from tracking_kit import Tracking, come_in, link, press

from service.tracking.browser_login import BrowserLogin
from service.tracking.callers import NewSession

SEARCH = "/ajax-api/2.0/mlflow/experiments/search"


def test_a_link_a_button_and_in(tracking: Tracking, browser: httpx.Client) -> None:
    assert browser.get("/").status_code == 401
    entry = link(tracking)
    page = browser.get(entry)
    assert page.status_code == 200
    assert not browser.cookies
    assert (page.headers["cache-control"], page.headers["x-frame-options"]) == ("no-store", "DENY")
    assert "script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    done = press(browser, page)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    (cookie,) = done.headers.get_list("set-cookie")
    assert cookie.startswith(f"barlow-mlflow-{tracking.mlflow.port}=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"} < set(cookie.split("; "))
    assert "Secure" not in cookie
    assert "MLflow" in browser.get("/").text
    assert browser.post(SEARCH, json={"max_results": 1}).status_code == 200


def test_what_fetches_the_link_or_comes_again_kills_nothing(tracking: Tracking, browser: httpx.Client) -> None:
    entry = link(tracking)
    for method in ("HEAD", "GET", "GET"):
        assert httpx.request(method, tracking.mlflow.url + entry).status_code == 200
    page = browser.get(entry)
    assert press(browser, page).status_code == 303
    # Pressed once more, and the link opened once more: on to where it leads.
    assert press(browser, page).status_code == 303
    again = browser.get(entry)
    assert (again.status_code, again.headers["location"]) == (303, "/")
    # Another browser learns how to go on, and is not in.
    used = httpx.get(tracking.mlflow.url + entry)
    assert used.status_code == 410
    assert "barlow open" in used.text
    for odd in ("/enter", "/enter?code=", "/enter?code=x", "/enter?code=" + 43 * "x", "/enter?code=" + 43 * "%00"):
        assert httpx.get(tracking.mlflow.url + odd).status_code in (400, 410)
    assert httpx.put(tracking.mlflow.url + entry).status_code == 405


def test_a_session_does_what_its_role_may_and_only_from_our_pages(tracking: Tracking, browser: httpx.Client) -> None:
    come_in(tracking, browser, "submitter")
    note = {"experiment_id": "0", "key": "note", "value": "x"}
    tag, delete = (f"/ajax-api/2.0/mlflow/experiments/{verb}" for verb in ("set-experiment-tag", "delete"))
    assert browser.post(tag, json=note).status_code == 200
    assert browser.post(delete, json={"experiment_id": "0"}).status_code == 403
    for foreign in ("http://127.0.0.1:1", "null", "https://evil.example.org"):
        assert browser.post(tag, json=note, headers={"Origin": foreign}).status_code == 403
    del browser.headers["Origin"]
    assert browser.post(tag, json=note).status_code == 401  # a cookie alone writes nothing
    assert browser.get("/version").status_code == 200
    assert browser.get("/ajax-api/3.0/mlflow/assistant/config").status_code == 404


def test_the_session_is_of_this_server_alone(tracking: Tracking, browser: httpx.Client) -> None:
    come_in(tracking, browser)
    (value,) = browser.cookies.values()
    for headers in ({"Cookie": f"barlow-mlflow-{tracking.mlflow.port}={value}"}, bearer(value)):
        assert httpx.get(f"{tracking.api}/api/v1/jobs", headers=headers).status_code == 401
    assert httpx.get(f"{tracking.mlflow.url}/version", headers=bearer(value)).status_code == 401


def test_leaving_ends_it(tracking: Tracking, browser: httpx.Client) -> None:
    come_in(tracking, browser)
    (kept,) = browser.cookies.items()
    left = press(browser, browser.get("/leave"))
    assert left.status_code == 200
    assert not browser.cookies
    stolen = {"Cookie": "=".join(kept)}
    assert httpx.get(f"{tracking.mlflow.url}/version", headers=stolen).status_code == 401


def test_a_revoked_token_takes_its_sessions_along_within_seconds(tracking: Tracking, browser: httpx.Client) -> None:
    body = {"name": "passing", "role": "reader"}
    made = httpx.post(f"{tracking.api}/api/v1/tokens", json=body, headers=bearer(ADMIN))
    tracking.tokens["passing"] = made.json()["secret"]
    come_in(tracking, browser, "passing")
    assert browser.get("/version").status_code == 200
    httpx.delete(f"{tracking.api}/api/v1/tokens/passing", headers=bearer(ADMIN)).raise_for_status()
    wait_until(lambda: browser.get("/version").status_code == 401, 30)


class _Redeems:
    """An API that says where to go on."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def redeem(self, _: str) -> NewSession:
        return NewSession("s" * 43, self._path, 60)


async def _entered(path: str, public: str, host: str) -> dict[bytes, bytes]:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/enter",
        "scheme": "http",
        "headers": [(b"host", host.encode())],
    }
    answer = await BrowserLogin(_Redeems(path), public).answer(scope, b"code=" + 43 * b"c")  # type: ignore[arg-type]
    return dict(answer.headers)


@pytest.mark.parametrize(
    "path", ["//evil.example.org", "https://evil.example.org", "/\\evil.example.org", "javascript:x", "/a\r\nb: c", ""]
)
def test_a_link_leads_to_no_other_server(path: str) -> None:
    assert asyncio.run(_entered(path, "http://127.0.0.1:5000", "127.0.0.1:5000"))[b"location"] == b"/"


def test_cookies_of_other_pages_of_the_host_hide_no_session(tracking: Tracking, browser: httpx.Client) -> None:
    come_in(tracking, browser)
    ours = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies.jar)
    for other in ('settings={"a": 1}', "a[b]=1", "a b=1", "=x", "x", "expires=1", 'a="b', "a=\u00fc"):
        for cookies in (f"{other}; {ours}", f"{ours}; {other}"):
            answer = httpx.get(f"{tracking.mlflow.url}/version", headers={"Cookie": cookies.encode("latin-1")})
            assert answer.status_code == 200, cookies


def test_behind_tls_the_cookie_is_for_tls_alone() -> None:
    cookie = asyncio.run(_entered("/", "https://mlflow.example.org", "mlflow.example.org"))[b"set-cookie"]
    assert cookie.startswith(b"__Host-barlow-mlflow-443=")
    assert cookie.endswith(b"; Secure")
    tunnel = asyncio.run(_entered("/", "https://mlflow.example.org", "localhost:5001"))[b"set-cookie"]
    assert tunnel.startswith(b"barlow-mlflow-5001=")
    assert b"Secure" not in tunnel
