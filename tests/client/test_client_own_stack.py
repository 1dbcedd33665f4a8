"""The admin token of one's own `barlow up`: made once, read by nobody else, and sent to nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_kit import ADMIN, guarded, run_server
from rights import NOBODY, OTHER, needs_root, thief
from typer.testing import CliRunner

from barlow_lab.given_files import RefusedFile
from service.api.browser_views import Entry
from service.client import browser, own_stack, token_store, tokens
from service.client.address import connect
from service.client.connection import ApiError, Unauthorized, Unreachable
from service.command import app
from service.loopback import NotOurs, listeners, require_ours
from service.settings import Settings


@pytest.fixture(scope="module")
def address(served: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an API process that asks for tokens."""
    with run_server(guarded(served), tmp_path_factory.mktemp("own")) as found:
        yield found


@pytest.fixture
def folder(address: str, tmp_path: Path) -> Path:
    """The folder of a stack of ours that answers at `address`, whose token is ADMIN."""
    made = tmp_path / "lab"
    made.mkdir()
    (made / "endpoints.json").write_text(json.dumps({"api": address}))
    (made / own_stack.FILE).write_text(f"{ADMIN}\n")
    (made / own_stack.FILE).chmod(0o600)
    return made


SPELLED = "localhost", "127.1", "LocalHost"


def whoami(url: str | None, folder: Path) -> str:
    with connect(url, folder) as client:
        return client.whoami().name


def test_it_is_made_once_and_for_the_account_alone(tmp_path: Path) -> None:
    assert own_stack.read(tmp_path) is None
    before = os.umask(0)
    try:
        token = own_stack.make(tmp_path)
    finally:
        os.umask(before)
    assert len(token) > 40
    assert own_stack.make(tmp_path) == own_stack.read(tmp_path) == token
    assert stat.S_IMODE((tmp_path / own_stack.FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [own_stack.FILE]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_one_that_others_can_reach_is_refused_by_both(tmp_path: Path, mode: int) -> None:
    own_stack.make(tmp_path)
    (tmp_path / own_stack.FILE).chmod(mode)
    for use in (own_stack.read, own_stack.make):
        with pytest.raises(ApiError, match=f"mode {mode:o}.*chmod 600"):
            use(tmp_path)


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def _short(path: Path) -> None:
    path.touch(mode=0o600)


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, _link, _short])
def test_what_is_no_file_with_a_token_is_refused(tmp_path: Path, put: object) -> None:
    path = tmp_path / own_stack.FILE
    put(path)  # type: ignore[operator]
    if not path.is_symlink():
        path.chmod(0o600)
    with pytest.raises(ApiError, match=r"remove it: the next `barlow up` makes a new one"):
        own_stack.make(tmp_path)


@needs_root
def test_one_of_another_account_is_refused(tmp_path: Path) -> None:
    own_stack.make(tmp_path)
    os.chown(tmp_path / own_stack.FILE, NOBODY, NOBODY)
    with pytest.raises(ApiError, match=f"another account \\(user id {NOBODY}\\)"):
        own_stack.read(tmp_path)


def test_the_command_finds_it_by_the_folder_and_by_the_address_that_stands_there(folder: Path, address: str) -> None:
    assert whoami(None, folder) == whoami(address, folder) == whoami(address + "/", folder) == "bootstrap"
    for spelled in ("localhost", "LocalHost"):
        assert whoami(address.replace("127.0.0.1", spelled), folder) == "bootstrap"
    done = CliRunner().invoke(app, ["jobs", "--data", str(folder)])
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.parametrize("odd", ["pipe", "link", "deep", "large"])
def test_a_file_of_addresses_that_is_none_holds_nobody(tmp_path: Path, odd: str) -> None:
    file = tmp_path / "endpoints.json"
    if odd == "pipe":
        os.mkfifo(file)
    elif odd == "link":
        file.symlink_to("/dev/zero")
    else:
        file.write_text("[" * 50_000 if odd == "deep" else json.dumps({"api": "x" * 100_000}))
    done = CliRunner().invoke(app, ["jobs", "--data", str(tmp_path)])
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert f"Error: {file}" in done.stderr


def test_it_goes_to_no_other_address(folder: Path, address: str) -> None:
    for other in (address.replace("http:", "https:"), "http://127.0.0.1:9", "https://lab.example.org"):
        with connect(other, folder) as client:
            assert "Authorization" not in client._connection._http.headers
    for named in ("http://192.0.2.1:8000", "http://localhost:8000", "https://127.0.0.1:8000", "http://[::1]:8000"):
        (folder / "endpoints.json").write_text(json.dumps({"api": named}))
        with connect(None, folder) as client:
            assert "Authorization" not in client._connection._http.headers


@needs_root
def test_no_token_goes_where_a_file_of_another_account_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(folder / "endpoints.json", NOBODY, NOBODY)
    monkeypatch.setenv("BARLOW_TOKEN", "barlow_mine")
    with connect(None, folder) as client:
        assert "Authorization" not in client._connection._http.headers


@needs_root
@pytest.mark.parametrize("ours_first", [False, True])
def test_no_token_goes_there_while_the_file_changes_places_with_one_of_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ours_first: bool
) -> None:
    """In a folder of another account's, who does it after every look: what is read, and whose it is, is of one file."""
    (lair := folder.parent / "lair").mkdir()
    name, theirs, mine = (lair / part for part in ("endpoints.json", "theirs", "mine"))
    theirs.write_text(json.dumps({"api": "http://127.0.0.1:9"}))
    os.chown(theirs, NOBODY, NOBODY)
    mine.symlink_to(folder / "endpoints.json")
    (mine if ours_first else theirs).rename(name)
    monkeypatch.setenv("BARLOW_TOKEN", "barlow_mine")
    looks = 0

    def then_exchanged(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked(path: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal looks
            try:
                return look(path, *arguments, **options)
            finally:
                if path == name or path == str(name):
                    looks += 1
                    away, here = (theirs, mine) if mine.is_symlink() else (mine, theirs)
                    name.rename(away)
                    here.rename(name)

        return looked

    for function in ("open", "stat", "lstat"):
        monkeypatch.setattr(os, function, then_exchanged(getattr(os, function)))
    with contextlib.suppress(RefusedFile, Unreachable), connect(None, lair) as client:
        assert str(client._connection._http.base_url).startswith("http://127.0.0.1:9")
        assert client._connection._http.headers.get("Authorization") is None
    assert looks


def test_addresses_are_not_read_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").symlink_to(folder / "endpoints.json")
    with pytest.raises(RefusedFile, match=r"endpoints\.json: it is a link, and the file itself is expected"):
        connect(None, tmp_path)
    (tmp_path / "link").symlink_to(folder)
    assert whoami(None, tmp_path / "link") == "bootstrap", "a folder may be one"


def test_a_file_that_is_none_does_not_matter_where_an_address_is_given(address: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endpoints.json")
    with connect(address, tmp_path) as client:
        assert "Authorization" not in client._connection._http.headers


@needs_root
def test_no_kept_token_goes_to_another_account_whose_file_says_where(folder: Path, config_home: Path) -> None:
    """As in a folder that is shared: a token is kept for a tunnel of that port, which is away now."""
    with thief() as other:
        address = f"http://127.0.0.1:{other.port}"
        (folder / "endpoints.json").write_text(json.dumps({"api": address}))
        os.chown(folder / "endpoints.json", NOBODY, NOBODY)
        token_store.store(address, "barlow_mine")
        with connect(None, folder) as client, pytest.raises(ApiError, match="taken by another account"):
            client.whoami()
        assert other.heard() == set()


@needs_root
@pytest.mark.parametrize("given", [False, True], ids=["its own token", "a token of the environment"])
def test_it_goes_to_no_server_of_another_account(folder: Path, monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    """The stack was killed, its addresses still stand there, and somebody has taken the port."""
    if given:
        monkeypatch.setenv("BARLOW_TOKEN", "barlow_mine")
    with thief() as other:
        address = f"http://127.0.0.1:{other.port}"
        (folder / "endpoints.json").write_text(json.dumps({"api": address}))
        assert listeners(other.port) == {OTHER}
        words = f"port {other.port} of 127.0.0.1 is taken by another account \\(user id {OTHER}\\), and nothing secret"
        for url in (None, address, *(address.replace("127.0.0.1", spelled) for spelled in SPELLED)):
            with connect(url, folder) as client:
                for ask in (client.whoami, lambda client=client: list(client.log("x"))):
                    with pytest.raises(ApiError, match=words):
                        ask()
        assert other.heard() == set()


@needs_root
@pytest.mark.parametrize("kept", ["in the environment", "by barlow login"])
@pytest.mark.parametrize("file", ["local.json", "endpoints.json"])
def test_no_token_goes_to_another_account_at_the_port_that_the_stack_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config_home: Path, kept: str, file: str
) -> None:
    """It was stopped, or killed: its port is anybody's, by whatever name it is asked for and by any address."""
    (folder / "endpoints.json").unlink()
    with thief(host="0.0.0.0") as other:
        state = {"ports": {"api": other.port}, "api": f"http://127.0.0.1:{other.port}"}
        (folder / file).write_text(json.dumps(state))
        monkeypatch.setattr(socket, "getaddrinfo", _lab_is_this_machine(socket.getaddrinfo))
        for host in ("127.0.0.1", "localhost", "127.1", "0.0.0.0", "127.0.1.1", "lab", "lab-net"):
            url = f"http://{host}:{other.port}"
            if kept == "in the environment":
                monkeypatch.setenv("BARLOW_TOKEN", "barlow_mine")
            else:
                token_store.store(url, "barlow_mine")
            with connect(url, folder) as client:
                assert client._connection._http.headers["authorization"] == "Bearer barlow_mine"
                with pytest.raises(
                    ApiError, match=f"taken by another account \\(user id {OTHER}\\), and nothing secret"
                ):
                    client.whoami()
        assert other.heard() == set()


@needs_root
def test_nor_by_login(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "endpoints.json").unlink()
    monkeypatch.setattr(tokens, "_asks_for_none", lambda _: False)
    with thief() as other:
        (folder / "local.json").write_text(json.dumps({"ports": {"api": other.port}}))
        url = f"http://localhost:{other.port}"
        done = CliRunner().invoke(app, ["login", "--url", url, "--data", str(folder)], input="barlow_mine")
        assert done.exit_code == 1
        assert f"by another account (user id {OTHER})" in done.stderr
        assert "from another folder than that of your stack, or with another --data" in done.stderr
        assert other.heard() == set()


def _own_address() -> str:
    """One of this machine's in a network; where it is in none, one of loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # chooses a way, and sends nothing
        except OSError:
            return "127.0.0.2"
        return str(asked.getsockname()[0])


def _lab_is_this_machine(real: Callable[..., Any]) -> Callable[..., Any]:
    """As lines of /etc/hosts would have it."""
    known = {"lab": "127.0.1.1", "lab-net": _own_address()}
    return lambda host, *more, **options: real(known.get(host, host), *more, **options)


@needs_root
def test_what_is_not_at_the_port_of_the_stack_is_sent_its_token_whosever_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stacks of others, tunnels and engines are other accounts', and rightly so; so is what a folder of theirs says."""
    monkeypatch.setenv("BARLOW_TOKEN", "barlow_mine")
    with thief() as other:
        state = folder / "local.json"
        for port, account in ((other.port - 1, os.geteuid()), (other.port, NOBODY)):
            state.write_text(json.dumps({"ports": {"api": port}}))
            os.chown(state, account, -1)
            with connect(f"http://127.0.0.1:{other.port}", folder) as client, pytest.raises(ApiError):
                client.whoami()
        assert any("barlow_mine" in words for words in other.heard())


@pytest.mark.parametrize("said", ["", "[]", '{"ports": 1}', '{"ports": {"api": "x"}}', "[" * 50_000, "\xff"])
def test_a_file_of_ports_that_is_none_holds_nobody(address: str, tmp_path: Path, said: str) -> None:
    (tmp_path / "local.json").write_text(said, encoding="latin-1")
    with connect(address, tmp_path) as client:
        assert not client.same_account


def test_a_proxy_on_the_way_to_another_machine_may_be_anybodys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "local.json").write_text('{"ports": {"api": 8000}}')
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    with connect("http://lab.example.org:8000", folder) as client:
        assert not client._connection._http.event_hooks["request"]
    with connect("http://127.0.0.1:8000", folder) as client:
        assert client._connection._http.event_hooks["request"]


@pytest.mark.parametrize("token", [None, "barlow_mine"], ids=["no token", "a token of the environment"])
@pytest.mark.parametrize(
    "form", ["me:hunter@{}", "me:hunter%40{}", "me:hunter＠{}", "{}?token=hunter", "{}/#hunter", "me:hunter"]
)
def test_an_address_with_a_password_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, form: str
) -> None:
    if token:
        monkeypatch.setenv("BARLOW_TOKEN", token)
    done = CliRunner().invoke(app, ["jobs", "--url", f"http://{form.format('127.0.0.1:9')}", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "the address of the API (--url or BARLOW_URL) is no good" in done.stderr
    assert "hunter" not in done.output


@needs_root
def test_nobody_is_led_to_a_page_of_another_account(folder: Path) -> None:
    """Whose server a link leads to no browser can ask, and the code in it lets one in."""
    with thief() as other, connect(None, folder) as client:
        entry = Entry(url=f"http://127.0.0.1:{other.port}/enter?code=x", expires_at=None)
        client.entry = lambda **_: entry  # type: ignore[method-assign]
        with pytest.raises(NotOurs, match=f"by another account \\(user id {OTHER}\\)"):
            browser._entry(client)
        assert browser.link(client, "page") == "page"


def test_a_server_that_goes_just_now_is_asked_again_and_sent_nothing() -> None:
    """As an API that is started again: of a connection that it had not taken yet nobody hears any more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        require_ours("127.0.0.1", port)
    with pytest.raises(ConnectionError, match=f"nobody listens at port {port} of 127.0.0.1 any more") as caught:
        require_ours("127.0.0.1", port)
    assert not isinstance(caught.value, NotOurs)
    require_ours("192.0.2.1", port)


def test_whose_a_listener_is_the_kernel_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as here, socket.create_server(("0.0.0.0", 0)) as everywhere:
        for listener in (here, everywhere):
            assert listeners(listener.getsockname()[1]) == {os.geteuid()}
    assert listeners(1) == set()


def test_what_the_user_gave_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARLOW_TOKEN", "barlow_wrong")
    with pytest.raises(Unauthorized, match="not known here; that was the token of BARLOW_TOKEN"):
        whoami(None, folder)


def test_a_refusal_names_the_remedy(folder: Path, address: str) -> None:
    with pytest.raises(Unauthorized, match=r"file admin-token in its folder.*--data DIR"):
        whoami(address, folder / "elsewhere")
    (folder / own_stack.FILE).write_text("barlow_" + 43 * "x")
    with pytest.raises(Unauthorized, match="its stack runs with another one, BARLOW_ADMIN_TOKEN; run `barlow login"):
        whoami(None, folder)
