"""Which names a server answers to, and whose pages may write to it."""

from __future__ import annotations

from typing import Any

import pytest

from service.web.origins import Names, host_name, origin_of, read_hosts

NAMES = Names.of(
    "BARLOW_X_HOSTS",
    "BARLOW_X_URL",
    hosts=["gpu-1", "Lab.Example.com:5000"],
    urls=["https://lab.example.org/x", None],
    others=["https://pages.example.org"],
)


def _status(method: str = "GET", *, scheme: str = "http", **headers: str) -> int:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "method": method, "scheme": scheme, "headers": named}
    refusal = NAMES.refusal(scope)
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:5",
        "localhost",
        "LOCALHOST:1",
        "[::1]:5",
        "127.9.9.9",
        "gpu-1:7",
        "lab.example.com:443",
        "lab.example.org",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_its_own_names_at_any_port(host: str, method: str) -> None:
    assert _status(method, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example.com", "localhost.evil.example.com", "127.0.0.1.nip.io", "gpu-1.example.com", "localhost."),
        *(
            "evil@localhost",
            "localhost:80@evil",
            "",
            "localhost/x",
            "localhost:x",
            "0.0.0.0:5",
            "10.0.0.1",
            "2130706433",
        ),
    ],
)
def test_another_name_is_misdirected_and_hears_of_the_setting(host: str) -> None:
    refusal = NAMES.refusal({"type": "http", "method": "GET", "headers": [(b"host", host.encode())]})
    assert refusal is not None
    assert refusal.status == 421
    assert "BARLOW_X_HOSTS" in refusal.words


def test_no_name_and_two_names_are_misdirected() -> None:
    for headers in ([], [(b"host", b"localhost"), (b"host", b"localhost")]):
        refusal = NAMES.refusal({"type": "http", "method": "GET", "headers": headers})
        assert refusal is not None
        assert refusal.status == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "ODD"])
def test_pages_of_others_write_nothing(method: str) -> None:
    here = "127.0.0.1:5000"
    assert _status(method, host=here) == 200
    assert _status(method, host=here, origin="http://127.0.0.1:5000", sec_fetch_site="same-origin") == 200
    assert _status(method, host="gpu-1:80", origin="http://gpu-1") == 200
    foreign = ["http://127.0.0.1:5001", "https://127.0.0.1:5000", "http://localhost:5000", "http://127.0.0.1", "null"]
    for origin in [*foreign, "", "http://a@127.0.0.1:5000", "file://", "http://127.0.0.1:5000:5000"]:
        assert _status(method, host=here, origin=origin) == 403, origin
    assert _status(method, host=here, sec_fetch_site="cross-site") == 403
    assert _status(method, host=here, origin="http://127.0.0.1:5000", sec_fetch_site="Cross-Site") == 403


def test_pages_behind_a_proxy_that_ends_tls_and_pages_that_are_listed_may_write() -> None:
    assert _status("POST", host="lab.example.org", origin="https://lab.example.org") == 200
    assert _status("POST", host="lab.example.com", origin="https://lab.example.com") == 403
    assert _status("POST", host="gpu-1", origin="https://pages.example.org", sec_fetch_site="cross-site") == 200
    # A page of ours is never of another site.
    assert _status("POST", host="gpu-1", origin="https://lab.example.org", sec_fetch_site="cross-site") == 403


def test_reading_asks_for_no_origin() -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        assert _status(method, host="gpu-1", origin="https://evil.example.com", sec_fetch_site="cross-site") == 200


def test_forms_of_names_and_origins() -> None:
    assert host_name("[FE80::1]:80") == "fe80::1"
    assert host_name("a b") == "a b"  # nobody's name
    assert origin_of("HTTPS://Lab.example.org:443/x?y") == "https://lab.example.org"
    assert origin_of("http://[::1]:5000") == "http://[::1]:5000"
    assert origin_of("ftp://lab") is None
    assert origin_of(None) is None


def test_the_setting_lists_names_and_no_pattern() -> None:
    assert read_hosts(" gpu-1, lab.example.org:5000 ,[fe80::1]:80,", "BARLOW_X_HOSTS") == [
        "gpu-1",
        "lab.example.org",
        "fe80::1",
    ]
    for wrong in ("*", "*.example.org", "lab:*", "http://lab", "lab/x", "a b"):
        with pytest.raises(ValueError, match="BARLOW_X_HOSTS"):
            read_hosts(wrong, "BARLOW_X_HOSTS")
