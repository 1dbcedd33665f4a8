"""Which Host is answered to, and from which pages a browser may change something."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.settings import read_networks
from service.web.origins import Refusal, TrustedNames, host_name, origin_of, read_hosts, read_origins

NAMES = TrustedNames.of(
    "BARLOW_X_HOSTS",
    "BARLOW_X_URL",
    "BARLOW_X_PAGES",
    hosts=["gpu-1", "Lab.Example.com:5000", "api"],
    urls=["https://lab.example.org/x", None],
    others=["https://pages.example.org", "http://localhost:3000"],
)


def ask(method: str = "GET", scheme: str = "http", **headers: str | list[str]) -> Refusal | None:
    sent = []
    for name, values in {"host": "localhost:8000", **headers}.items():
        for value in [values] if isinstance(values, str) else values:
            sent.append((name.replace("_", "-").encode(), value.encode("latin-1")))
    return NAMES.refusal({"type": "http", "method": method, "scheme": scheme, "headers": sent})


def status(refusal: Refusal | None) -> int:
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8000", "LocalHost:1", "localhost.", "localhost.:8000", "localhost:", "127.0.0.1",
        "127.0.0.1:8000", "127.8.9.10:8000", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]:8000", "api:8000", "API",
        "lab.example.org", "lab.example.org:8443", "LAB.example.org.", "192.0.2.7:8000", "[2001:db8::7]:8000",
    ],
)  # fmt: skip
def test_names_of_the_server_are_answered_to_at_any_port(host: str) -> None:
    assert ask(host=host) is None
    assert ask("POST", host=host, origin=f"http://{host}") is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost",
        "lab.example.org.evil.example", "notlab.example.org", "foo.localhost", "127.1", "0x7f.0.0.1", "2130706433",
        "127.0.0.1.nip.io:8000", "mlflow", "_", "a-b_c.d:1",
    ],
)  # fmt: skip
def test_any_other_name_is_misdirected_and_told_the_setting(host: str) -> None:
    refused = ask(host=host)
    assert refused is not None
    assert refused.status == 421
    assert "BARLOW_X_HOSTS" in refused.words
    assert repr(host.rpartition(":")[0] or host) in refused.words


@pytest.mark.parametrize(
    "host",
    [
        "", " ", "local host", "localhost:80:80", "localhost:x", "localhost:-1", "localhost:99999", "localhost:123456",
        "user@localhost", "localhost/", "http://localhost", "localhost, evil.example", "localhost\t:80", "a..b",
        ".localhost",
        "localhost..", "[::1", "::1", "[::1]x", "[localhost]", "[::1%25eth0]", "[127.0.0.1]:y", "localhost#",
        "localhost?",
        "\x1b[31mlocalhost", "löcalhost", "\u0085", "*", "-a", "[]", "[:]",
    ],
)  # fmt: skip
def test_what_is_no_host_is_a_bad_request_and_drives_no_terminal(host: str) -> None:
    refused = ask(host=host)
    assert refused is not None
    assert refused.status == 400
    assert refused.words.isascii()
    assert refused.words.isprintable()


def test_no_host_and_two_are_bad_requests() -> None:
    assert status(ask(host=[])) == 400
    assert status(ask(host=["localhost", "localhost"])) == 400
    assert status(ask(host=["localhost", "evil.example"])) == 400


def test_a_long_host_is_not_sent_back_whole() -> None:
    refused = ask(host="a" * 100_000)
    assert refused is not None
    assert len(refused.words) < 500


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "QUERY", "PROPFIND", "post"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost"},
        {"origin": "http://localhost:8001"},
        {"origin": "https://localhost:8000"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "http://localhost:8000/"},
        {"origin": "http://localhost:8000.evil.example"},
        {"origin": "http://localhost:8000@evil.example"},
        {"origin": "http://localhost:3001"},
        {"origin": "http://lab.example.org"},
        {"origin": "https://gpu-1"},
        {"origin": "http://a@localhost:8000"},
        {"origin": "http://localhost:8000:8000"},
        {"origin": "https://lab.example.org", "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "Cross-Site"},
        {"origin": "chrome-extension://abcdefghijklmnop"},
        {"origin": "file://"},
        {"origin": ["http://localhost:8000", "http://evil.example"]},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "anything"},
        {"sec_fetch_site": ["same-origin", "cross-site"]},
        {"origin": "http://localhost:8000", "sec_fetch_site": "cross-site"},
    ],
)
def test_nothing_is_changed_for_a_page_of_another_origin(method: str, headers: dict[str, str | list[str]]) -> None:
    refused = ask(method, **headers)
    assert refused is not None
    assert refused.status == (400 if any(isinstance(value, list) for value in headers.values()) else 403)
    assert ask("GET", **headers) is None, "what changes nothing is its own page's affair"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:8000"},
        {"origin": "http://LOCALHOST:8000", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"host": "localhost:80", "origin": "http://localhost"},
        {"host": "localhost", "origin": "http://localhost:80"},
        {"host": "[::1]:8000", "origin": "http://[::1]:8000"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"},
        {"host": "lab.example.org", "origin": "https://lab.example.org"},
        {"origin": "https://pages.example.org", "sec_fetch_site": "cross-site"},
        {"origin": "http://localhost:3000", "sec_fetch_site": "same-site"},
        {"host": "gpu-1:80", "origin": "http://gpu-1"},
    ],
)
def test_its_own_pages_those_that_are_listed_and_programs_may(method: str, headers: dict[str, str]) -> None:
    assert ask(method, **headers) is None


def test_the_scheme_is_that_of_the_connection() -> None:
    assert ask("POST", "https", host="localhost", origin="https://localhost") is None
    assert ask("POST", "https", host="localhost", origin="https://localhost:443") is None
    assert status(ask("POST", "https", host="localhost", origin="http://localhost")) == 403


def test_a_browser_that_asks_whether_it_may_is_told_no() -> None:
    asks = {"access_control_request_method": "POST"}
    assert status(ask("OPTIONS", origin="http://evil.example", **asks)) == 403
    assert ask("OPTIONS", origin="http://localhost:3000", **asks) is None
    assert ask("OPTIONS", origin="http://evil.example") is None


def test_a_refusal_names_the_setting_and_shows_what_came_without_its_controls() -> None:
    refused = ask("POST", origin="http://evil\x1b[31m\x85")
    assert refused is not None
    assert "BARLOW_X_PAGES" in refused.words
    assert refused.words.isprintable()


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_header_is_a_server_error(host: str, said: str) -> None:
    for method in ("GET", "POST"):
        for header in ("origin", "sec_fetch_site", "host"):
            refused = ask(method, **{"host": host, header: said})
            assert status(refused) in (200, 400, 403, 421)


@pytest.mark.parametrize("text", ["*", "*.example.org", "http://a", "a b", "a;b", ".a", "lab:*", "lab/x", "::1", "a@b"])
def test_a_setting_that_holds_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="BARLOW_X_HOSTS lists names"):
        read_hosts(f"good.example,{text}", "BARLOW_X_HOSTS")


@pytest.mark.parametrize("text", ["*", "null", "a.org", "https://", "ftp://a", "https://a/b", "https://*.a", "//a"])
def test_a_setting_that_holds_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="BARLOW_X_PAGES lists origins"):
        read_origins(f"https://good.example,{text}", "BARLOW_X_PAGES")


@pytest.mark.parametrize(
    "text",
    [
        "https://u:S3cret@h.example",
        "https://u:a,S3cret@h",
        "u:S3cret%40h",
        "u:S3cret\uff20h",
        "good.example,u:S3cret@h",
    ],
)
@pytest.mark.parametrize(
    "read", [lambda text: read_hosts(text, "X"), lambda text: read_origins(text, "X"), read_networks]
)
def test_nothing_is_shown_of_a_setting_that_may_hold_a_password(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match="with an @ in it and so not shown here, is none") as caught:
        read(text)
    assert "S3cret" not in str(caught.value)
    assert "u:a" not in str(caught.value)


def test_one_spelling() -> None:
    assert read_hosts(" A.example.org., ,gpu-1:5000,[FE80::1]:80,", "") == ["a.example.org", "gpu-1", "fe80::1"]
    assert read_origins("https://A:443, http://b:8080,", "") == ["https://a", "http://b:8080"]
    assert origin_of("HTTP://[0:0::1]:80") == "http://[::1]"
    assert origin_of("https://lab.example.org:8443/some/path?x") == "https://lab.example.org:8443"
    assert origin_of("HTTPS://Lab.example.org:443?y") == "https://lab.example.org"
    assert origin_of("ftp://lab") is None
    assert origin_of("https://a@lab") is None
    assert origin_of(None) is None
    assert host_name("Lab.") == "lab"
    assert host_name("a b") is None
