"""This machine is asked directly; for other addresses a proxy is honoured, and named without its password."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from http_ears import Ears

from service.client import connection
from service.client.api import Client
from service.client.connection import ApiError, Unreachable

PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of whoever runs the tests, and no second try."""
    monkeypatch.setattr(connection, "_WAITS", ())
    for name in (*PROXIES, "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_a_token_for_this_machine_meets_no_proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ears(b"{}") as proxy:
        for name in PROXIES[:-2]:
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/ca.pem")
        for address in (server, server.replace("127.0.0.1", "localhost")):
            with Client(address, "a-token") as client:
                assert client.nodes().items == []
        assert proxy.heard == []


@pytest.mark.parametrize(
    "spelling", ["127.1", "0.0.0.0", "0", "localhost.", "2130706433", "api.localhost", "[::ffff:127.0.0.1]", "[::]"]
)
def test_nor_does_one_for_this_machine_in_another_spelling(spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ears(b"{}") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with Client(f"http://{spelling}:9", "a-token") as client, pytest.raises(Unreachable):
            client.nodes()
        assert proxy.heard == []


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
def test_another_address_is_asked_through_the_proxy_which_errors_name(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with Ears(b"no such host", status=502) as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("//", "//me:hush@"))
        with Client("http://lab.example:8000") as client, pytest.raises(ApiError) as caught:
            client.nodes()
        assert [heard.path for heard in proxy.heard] == ["http://lab.example:8000/api/v1/nodes"]
        assert f"http://lab.example:8000 through the proxy {proxy.url} answered 502" in str(caught.value)
    with Client("http://lab.example:8000") as client, pytest.raises(Unreachable) as refused:
        client.nodes()
    assert f"http://lab.example:8000 through the proxy {proxy.url} (ConnectError)" in str(refused.value)
    assert "hush" not in str(caught.value) + str(refused.value)


def test_no_proxy_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    with Ears(b"{}") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "other.example,lab.invalid")
        with Client("http://lab.invalid:8000") as client, pytest.raises(Unreachable) as caught:
            client.nodes()
        assert proxy.heard == []
    assert "proxy" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALL_PROXY", "socks5h://127.0.0.1:9", "pip install socksio"),
        ("http_proxy", "htp://me:hush@proxy:3128", "http_proxy is not the address of a proxy"),
        *(
            (variable, address, f"{variable} is not the address of a proxy")
            for variable in ("http_proxy", "ALL_PROXY")
            for address in (
                *("::::", "me:hush", "http://me:hush@::::", "http://me:hush@:3128", "//me:hush@proxy:3128"),
                *("http://me:hush@proxy:what", "http://me:hush@proxy:99999", "http://me:hush@pro xy:3128"),
                *("http://me:12/hush@proxy:3128", "http://12?hush@proxy:3128", "http://me#hush@proxy:3128"),
            )
        ),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Unreachable, match=said) as caught:
        Client("http://lab.example:8000")
    assert "hush" not in str(caught.value)
    Client("http://127.0.0.1:8000").close()


@pytest.mark.parametrize(
    "address", ["proxy", "proxy:3128", "http://pro_xy.example:3128/", "https://a%40b:c%2Fd@proxy", "http://[::1]:3128"]
)
def test_a_proxy_that_is_well_written_is_taken(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    Client("http://lab.example:8000").close()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there_are_an_error_where_they_are_used(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "/nonexistent/ca.pem")
    with pytest.raises(Unreachable, match=f"{variable} is /nonexistent/ca.pem, which cannot be used: No such file"):
        Client("https://lab.example")
    Client("http://lab.example").close()


def test_no_certificates_are_read_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: pytest.fail("read for http"))
    Client("http://127.0.0.1:9").close()
    Client("http://lab.example").close()


def test_the_command_says_it_in_a_line() -> None:
    environment = {**os.environ, "ALL_PROXY": "socks5://127.0.0.1:9"}
    barlow = Path(sys.executable).with_name("barlow")
    done = subprocess.run(
        [barlow, "jobs", "--url", "http://lab.example"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: http://lab.example cannot be asked: ALL_PROXY names a SOCKS proxy")
    assert "Traceback" not in done.stderr
