"""`barlow login`, `logout` and `token`, over a real API that asks for tokens; where a token goes, and where not."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_kit import ADMIN, PRETRAIN, guarded, run_server
from typer.testing import CliRunner, Result

from service.client import token_store, tokens
from service.client.address import connect
from service.client.api import Client
from service.client.connection import ApiError, Unauthorized
from service.command import app
from service.settings import Settings


@pytest.fixture(scope="module")
def address(served: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an API process that asks for tokens."""
    with run_server(guarded(served), tmp_path_factory.mktemp("guarded")) as found:
        yield found


@pytest.fixture
def barlow(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("BARLOW_URL", address)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=typed)

    return run


@pytest.fixture
def stored(config_home: Path) -> Path:
    """Where the tokens are kept."""
    return config_home / "barlow" / "tokens.json"


def test_an_admin_makes_a_token_and_another_logs_in_with_it(barlow: Any, address: str, stored: Path) -> None:
    for arguments in (["jobs"], ["token", "list"], ["submit", "recipe.yaml"]):
        Path("recipe.yaml").write_text(json.dumps({**PRETRAIN, "name": "by-alice"}))
        locked = barlow(*arguments)
        assert locked.exit_code == 1
        assert f"run `barlow login --url {address}`" in locked.stderr

    Path("admin").write_text(ADMIN + "\n")
    done = barlow("login", "--token-file", "admin")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"logged in at {address} as bootstrap (admin)" in done.output
    assert json.loads(stored.read_text()) == {address: ADMIN}
    assert (stat.S_IMODE(stored.stat().st_mode), stat.S_IMODE(stored.parent.stat().st_mode)) == (0o600, 0o700)

    made = barlow("token", "create", "alice", "--role", "submitter")
    assert made.exit_code == 0, made.stderr
    secret = made.stdout.strip()
    assert made.stdout == f"{secret}\n"
    assert f"barlow login --url {address}" in made.stderr
    assert "take another name" in barlow("token", "create", "alice", "--role", "reader").stderr
    assert barlow("token", "create", "bob", "--role", "owner").exit_code == 2

    assert "as alice (submitter)" in barlow("login", typed=secret + "\n").output
    assert barlow("submit", "recipe.yaml").exit_code == 0
    assert barlow("cancel", "by-alice").output == "by-alice  cancelled by alice\n"
    assert "default/by-alice alice pretrain cancelled" in " ".join(barlow("jobs", "--mine").output.split())
    assert "by-alice" in barlow("jobs", "--user", "alice").output
    assert "by-alice" not in barlow("jobs", "--user", "nobody").output
    assert barlow("jobs", "--mine", "--user", "alice").exit_code == 2
    low = barlow("token", "list")
    assert low.exit_code == 1
    assert "takes the role admin, and the token alice is a submitter" in low.stderr
    assert barlow("logout").output == f"the token for {address} is removed\n"
    assert barlow("logout").output == f"there is no token for {address}\n"
    assert json.loads(stored.read_text()) == {}
    assert barlow("jobs").exit_code == 1


def test_the_token_of_the_environment_wins(
    barlow: Any, address: str, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert barlow("login", typed=ADMIN).exit_code == 0
    monkeypatch.setenv("BARLOW_TOKEN", "barlow_wrong")
    assert "not known here" in barlow("jobs").stderr
    assert "unset it" in barlow("login", typed=ADMIN).stderr
    stored.write_text(json.dumps({address: "barlow_wrong"}))
    monkeypatch.setenv("BARLOW_TOKEN", ADMIN)
    secret = barlow("token", "create", "carol", "--role", "reader").stdout.strip()
    listed = barlow("token", "list").output
    assert "carol  carol  reader  made " in listed
    assert " by bootstrap  without an end\n" in listed
    assert barlow("token", "create", "dora-1", "--role", "reader", "--user", "dora", "--expires", "90d").exit_code == 0
    assert "dora-1  dora  reader  made " in barlow("token", "list").output
    assert "for example 90d" in barlow("token", "create", "x", "--role", "reader", "--expires", "long").stderr
    assert secret not in listed
    assert barlow("token", "revoke", "carol").output == "carol  revoked\n"
    assert barlow("token", "revoke", "carol").output == "carol  revoked\n"
    assert "  revoked " in barlow("token", "list").output
    acts = barlow("audit").output.splitlines()
    assert "  token.revoke  carol  by bootstrap from 127.0.0.1  role reader  user carol" in acts[0]
    assert "  token.create  dora-1  by bootstrap from 127.0.0.1  expires_at " in acts[1]
    monkeypatch.setenv("BARLOW_TOKEN", secret)
    assert "carol was revoked" in barlow("jobs").stderr


def test_the_token_of_the_environment_goes_nowhere_that_only_a_file_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sent(url: str | None) -> str | None:
        with connect(url, tmp_path) as client:
            return client._connection._http.headers.get("Authorization")

    monkeypatch.setenv("BARLOW_TOKEN", "barlow_mine")
    there, here = "https://elsewhere.example.org", "http://127.0.0.1:8000"
    (tmp_path / "endpoints.json").write_text(json.dumps({"api": there}))
    assert sent(None) is None
    assert sent(there) == "Bearer barlow_mine"
    (tmp_path / "endpoints.json").write_text(json.dumps({"api": here}))
    assert sent(None) == "Bearer barlow_mine"


@pytest.mark.parametrize("typed", ["barlow_wrong\n", "", "\n", "two words\n"])
def test_what_is_no_token_there_is_not_stored(barlow: Any, stored: Path, typed: str) -> None:
    done = barlow("login", typed=typed)
    assert done.exit_code == 1
    assert "token" in done.stderr
    assert "Traceback" not in done.output + done.stderr
    assert not stored.exists()


def test_a_terminal_shows_nothing_of_what_is_typed(barlow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def prompt(_: str, *, hide_input: bool) -> str:
        asked.append(hide_input)
        return ADMIN

    monkeypatch.setattr(tokens.typer, "prompt", prompt)
    monkeypatch.setattr(tokens, "_is_a_terminal", lambda: True)
    assert "as bootstrap (admin)" in barlow("login").output
    assert asked == [True]


def test_where_no_token_is_asked_for_none_is_sent_or_stored(barlow: Any, server: str, stored: Path) -> None:
    done = barlow("login", "--url", server, typed=ADMIN)
    assert (done.exit_code, done.output) == (0, f"{server} asks for no token; nothing is stored\n")
    assert not stored.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_not_read(barlow: Any, stored: Path, mode: int) -> None:
    assert barlow("login", typed=ADMIN).exit_code == 0
    stored.chmod(mode)
    for arguments in (["jobs"], ["logout"], ["login"]):
        done = barlow(*arguments, typed=ADMIN)
        assert done.exit_code == 1
        assert f"chmod 600 {stored}" in done.stderr
        assert ADMIN not in done.stderr
    stored.chmod(0o600)
    assert barlow("jobs").exit_code == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"http://x": 1}'])
def test_a_file_of_something_else_is_said(barlow: Any, stored: Path, content: str) -> None:
    stored.parent.mkdir(parents=True)
    stored.write_text(content)
    stored.chmod(0o600)
    done = barlow("jobs")
    assert done.exit_code == 1
    assert f"{stored} does not hold the tokens" in done.stderr


@pytest.mark.parametrize(("put", "said"), [(os.mkfifo, "it is a named pipe"), (Path.mkdir, "it is a folder")])
def test_what_is_no_file_holds_nobody(barlow: Any, stored: Path, put: Callable[[Path], None], said: str) -> None:
    stored.parent.mkdir(parents=True)
    put(stored)
    done = barlow("jobs")
    assert done.exit_code == 1
    assert f"{stored}: {said}" in done.stderr


def test_a_token_is_for_one_address_however_it_is_written() -> None:
    token_store.store("http://Lab.example.org:80/", "one")
    token_store.store("https://lab.example.org/barlow", "two")
    assert token_store.token_for("http://lab.example.org") == "one"
    assert token_store.token_for("https://lab.example.org:443/barlow/") == "two"
    for other in (
        "https://lab.example.org",
        "http://lab.example.org:8000",
        "http://example.org",
        "http://lab.example.org.evil.example",
    ):
        assert token_store.token_for(other) is None
    with pytest.raises(ApiError, match="is no good"):
        token_store.token_for("http://lab.example.org:port")


def test_the_config_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for configured in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", configured)
        assert token_store.file() == tmp_path / ".config" / "barlow" / "tokens.json"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_token_follows_no_redirect(status: int) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, headers={"Location": "http://elsewhere.example/api/v1/nodes"})

    with Client("http://barlow", ADMIN, transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(ApiError, match=str(status)):
            client.nodes()
        with pytest.raises(ApiError, match=str(status)):
            list(client.log("7", follow=True))
    assert [request.url.host for request in asked] == ["barlow", "barlow"]
    assert {request.headers["Authorization"] for request in asked} == {f"Bearer {ADMIN}"}


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://lab.example.org", True), ("http://192.0.2.1:8000", True), ("http://127.0.0.1.example.org", True),
        ("https://lab.example.org", False), ("http://127.0.0.1:8000", False), ("http://[::1]:8000", False),
        ("http://localhost", False),
    ],
)  # fmt: skip
def test_login_warns_before_a_token_goes_over_plain_http(
    barlow: Any, monkeypatch: pytest.MonkeyPatch, url: str, warned: bool
) -> None:
    monkeypatch.setattr(tokens, "_asks_for_none", lambda _: False)
    done = barlow("login", "--url", url, typed="")
    assert done.exit_code == 1
    assert ("put TLS in front" in done.stderr) == warned


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é"])
def test_what_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(Unauthorized, match="barlow login"):
        Client("http://barlow", token)


@pytest.mark.parametrize(
    "url",
    [
        *("http://me:hunter2@127.0.0.1:9", "http://me:hun@ter2/x@127.0.0.1:9", "http://hunter2@127.0.0.1:9"),
        *("me:hunter2@lab", "https://me:hunter2@[::1", "http://me:hunter2@lab:99999999", "http://lab/?token=hunter2"),
    ],
)
@pytest.mark.parametrize("command", ["jobs", "login", "logout", "open", "token list"])
def test_an_address_with_a_password_is_refused_and_not_shown(
    command: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors and remedies show the address; a token has places of its own."""
    monkeypatch.setenv("BARLOW_URL", url)
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 1
    assert "(--url or BARLOW_URL) is no good" in done.output
    assert "`barlow login`, or stands in BARLOW_TOKEN" in " ".join(done.output.split())
    assert "ter2" not in done.output


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "HOME"])
@pytest.mark.parametrize("place", ["/dev/null", "a file", "a file in it", "/proc"])
def test_a_place_for_tokens_that_is_none_is_named_with_its_variable(
    variable: str, place: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "barlow").touch()
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config/barlow").touch()
    monkeypatch.setenv(variable, {"a file": str(tmp_path / "barlow"), "a file in it": str(tmp_path)}.get(place, place))
    done = CliRunner().invoke(app, ["login", "--url", address], input=ADMIN)
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "tokens.json, where tokens are kept, cannot be used: " in said
    assert f"{variable} says where it is: set XDG_CONFIG_HOME to a folder that is yours" in said
