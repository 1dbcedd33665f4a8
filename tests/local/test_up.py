"""`barlow up` as a user runs it: one start after another on the same directory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import foreign_shell
import httpx
import psutil
import psycopg
import pytest
from api_kit import ADMIN
from former_stack import PASSWORD, make_former
from PIL import Image
from running_stack import Up, wait_until

from service import outgoing_http
from service.local import access
from service.local.agreement import compare
from service.web.listening import bind

_JOB = {
    "kind": "knn",
    "name": "floor",
    "data": {"name": "digits"},
    "images": {"size": 32, "resize": 32},
    "backbone_from": {"pixels": True},
}


_OWNERS = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"


def _ready(api: str) -> bool:
    with contextlib.suppress(httpx.HTTPError), outgoing_http.client(api) as client:
        return client.get("/readyz").status_code == 200
    return False


def test_up_through_its_life_in_a_foreign_shell_and_folder(fresh_stack: Up, tmp_path: Path) -> None:
    """Under more than forty variables of other projects, in a folder whose modules are called like ours."""
    up, directory = fresh_stack, fresh_stack.directory
    assert len(foreign_shell.VARIABLES) > 40
    up.settings = {**foreign_shell.VARIABLES, **up.settings}
    up.started_in = foreign_shell.make_folder(tmp_path / "my project")
    make_former(directory)
    up.start()
    api = up.endpoints["api"]
    _what_a_former_version_left_is_taken_over(up)
    assert set(up.endpoints) == {"api", "mlflow", "database"}
    assert all(up.endpoints[name].startswith("http://127.0.0.1:") for name in ("api", "mlflow"))
    for private in (directory, *(directory / name for name in ("endpoints.json", "local.json", "redis/redis.conf"))):
        assert private.stat().st_mode & 0o077 == 0, private
    assert _ready(api)
    refused = httpx.post(f"{api}/api/v1/jobs?experiment=kept", json=_JOB)
    assert (refused.status_code, "admin-token" in refused.json()["detail"]) == (401, True)
    made = httpx.post(f"{api}/api/v1/jobs?experiment=kept", json=_JOB, headers=up.bearer)
    assert made.status_code == 201, made.text
    _the_token_is_where_it_belongs(up)

    barlow = Path(sys.executable).with_name("barlow")
    for name in ("api", "scheduler", "worker", "mlflow"):
        assert up.part(name).environ()["BARLOW_SAME_ACCOUNT"] == "true"
    second = subprocess.run([barlow, "up", "--data", directory], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"already runs on {directory} (process {up.process.pid})" in " ".join(second.stderr.split())

    _the_port_of_an_api_that_crashed_stays_ours(up)

    # A child that dies is started again, and it is said; the node's name is not blocked by its dead worker.
    for name, module in (("scheduler", "service.scheduling"), ("worker", "worker")):
        dead = up.child(module)
        dead.kill()
        wait_until(lambda name=name: f"{name} ended with exit code -9; starting it again" in up.output, 30)
        wait_until(lambda module=module, dead=dead: [p for p in up.modules(module) if p.pid != dead.pid] != [], 30)

    # Nothing outlives a killed `up`, and the next one goes on where it was.
    up.kill()
    before, former = up.endpoints, (up.mlflow_token, _password_of_redis(up))
    own = up.token
    up.settings = {**up.settings, "BARLOW_ADMIN_TOKEN": ADMIN}
    what_there_is = _put_images_and_weights(up, tmp_path)
    up.start()
    assert all(line in up.output.splitlines() for line in what_there_is), up.output
    assert up.token == own, "it is kept for a start without the variable"
    up.token = ADMIN
    assert up.endpoints == before
    assert set(former).isdisjoint({up.mlflow_token, _password_of_redis(up)}), "whoever learned one knows nothing now"
    for token, status in ((up.mlflow_token, 200), (former[0], 401)):
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{up.endpoints['mlflow']}/version", headers=headers).status_code == status
    assert httpx.get(f"{api}/api/v1/whoami", headers={"Authorization": f"Bearer {own}"}).status_code == 401
    (kept,) = httpx.get(f"{api}/api/v1/jobs?experiment=kept", headers=up.bearer).json()["items"]
    assert kept["id"] == made.json()["id"]
    job = f"{api}/api/v1/jobs/{kept['id']}"
    with outgoing_http.client(api, headers=up.bearer) as client:
        wait_until(lambda: client.get(job).json()["state"] == "succeeded", 60)
        wait_until(lambda: client.get(job).json()["recording"]["mlflow"] == "complete", 60)
    assert compare(up.endpoints["database"], up.endpoints["mlflow"], "kept", token=ADMIN).faults == []
    assert [log for log in (directory / "logs").iterdir() if b"OF THE FOLDER" in log.read_bytes()] == []
    _the_token_is_where_it_belongs(up)
    assert (directory / "cache").stat().st_mode & 0o777 == 0o700, "what ranks compile"
    _images_and_weights_are_known(up)

    assert up.stop() == 0, up.output
    assert up.processes() == []
    assert not (directory / "endpoints.json").exists()


def _the_port_of_an_api_that_crashed_stays_ours(up: Up) -> None:
    url, api = httpx.URL(up.endpoints["api"]), up.child("service.api")
    parent = psutil.Process(up.process.pid)
    parent.suspend()  # nobody starts it again meanwhile
    try:
        api.kill()
        # Its socket is closed a moment after it is called a zombie, with the last of its threads.
        wait_until(lambda: api.status() == psutil.STATUS_ZOMBIE and _refuses(url), 30)
        with pytest.raises(OSError, match="already in use"):
            bind(url.host, url.port)
    finally:
        parent.resume()


def _password_of_redis(up: Up) -> str:
    """By its own file; nothing else in the folder keeps it, or the recorder's token."""
    kept = (up.directory / "local.json").read_text()
    assert "redis_password" not in kept
    assert up.mlflow_token not in kept
    (line,) = (line for line in (up.directory / "redis/redis.conf").read_text().splitlines() if "requirepass" in line)
    return line.split()[1]


def _refuses(url: httpx.URL) -> bool:
    try:
        socket.create_connection((url.host, url.port)).close()
    except ConnectionRefusedError:
        return True
    return False


def _put_images_and_weights(up: Up, folder: Path) -> list[str]:
    """A datasets.yaml in the data folder, a folder of weights named on the command line; what is to be said of them."""
    data, weights = up.directory / "data", folder / "weights"
    (data / "photos/old").mkdir(parents=True)
    weights.mkdir()
    Image.new("RGB", (8, 8), "grey").save(data / "photos/old/1.png")
    (data / "datasets.yaml").write_text("photos: {format: images, root: photos}\n")
    (weights / "other.pth").touch()
    up.arguments = ("--backbones", str(weights))
    return [
        f"data sets   photos (images) of {data / 'datasets.yaml'}, beside digits, textures, scenes",
        f"backbones   other.pth in {weights}",
    ]


def _images_and_weights_are_known(up: Up) -> None:
    def answer(path: str, body: dict[str, object] | None = None) -> httpx.Response:
        url = f"{up.endpoints['api']}/api/v1{path}"
        return httpx.request("GET" if body is None else "POST", url, json=body, headers=up.bearer)

    def photos() -> dict[str, object]:
        return next(entry for entry in answer("/datasets").json()["items"] if entry["name"] == "photos")

    wait_until(lambda: photos()["checked"] is True, 60)
    assert photos()["splits"] == {"train": 1}
    judged = {**_JOB, "backbone": {"name": "resnet18"}, "name": "foreign"}

    def status_of(file: str) -> int:
        return answer("/jobs?validate_only=true", {**judged, "backbone_from": {"file": file}}).status_code

    wait_until(lambda: status_of("missing.pth") == 422, 60)  # the worker has looked
    assert status_of("other.pth") == 200


def _read_if_there(file: Path) -> bytes:
    """PostgreSQL removes files of its own while others are read."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _the_token_is_where_it_belongs(up: Up) -> None:
    """The command of this account finds the stack's own; nothing that is printed, no log and no other part has any."""
    kept = up.directory / "admin-token"
    own = kept.read_text().strip()
    assert kept.stat().st_mode & 0o777 == 0o600
    barlow = [Path(sys.executable).with_name("barlow"), "jobs", "--data", up.directory]
    clean = {name: value for name, value in os.environ.items() if name not in ("BARLOW_TOKEN", "BARLOW_URL")}
    listed = subprocess.run(barlow, capture_output=True, text=True, check=False, env=clean)
    if up.token == own:
        assert (listed.returncode, listed.stderr, "kept/floor" in listed.stdout) == (0, "", True)
        assert f"/admin-token' | curl -sK - {up.endpoints['api']}/api/v1/jobs" in up.output
    else:
        assert "runs with another one, BARLOW_ADMIN_TOKEN; run `barlow login" in listed.stderr
    written = [up.output_file, *(file for file in up.directory.rglob("*") if file.is_file() and file != kept)]
    tokens = {own.encode(), str(up.token).encode()}
    assert [file for file in written if any(token in _read_if_there(file) for token in tokens)] == []
    for name in ("postgres", "redis", "mlflow", "scheduler", "worker"):
        values = " ".join([*up.part(name).environ().values(), *up.part(name).cmdline()])
        assert not any(token.decode() in values for token in tokens), name


@pytest.mark.parametrize(("name", "wrong"), [("BARLOW_ADMIN_TOKEN", "short"), ("BARLOW_ADMIN_TOKEN", "")])
def test_an_admin_token_that_is_no_good_ends_it_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, wrong: str
) -> None:
    monkeypatch.setenv(name, wrong)
    with pytest.raises(ValueError, match=f"^{name} must be 32 visible ASCII characters") as caught:
        access.admin_token(tmp_path, guarded=True)
    assert "pydantic" not in str(caught.value), "it is told what to do, and sent to no page about a library"


def test_where_the_admin_token_comes_from_and_what_is_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BARLOW_ADMIN_TOKEN", raising=False)
    own = access.admin_token(tmp_path, guarded=True)
    assert own == {"BARLOW_ADMIN_TOKEN": (tmp_path / "admin-token").read_text().strip()}
    open_to_all = access.admin_token(tmp_path, guarded=False)
    assert open_to_all == {}
    (said,) = access.how_to_use(tmp_path, "http://127.0.0.1:8000", open_to_all)
    assert "EVERY ACCOUNT OF THIS MACHINE IS AN ADMIN" in said
    monkeypatch.setenv("BARLOW_ADMIN_TOKEN", ADMIN)
    given = access.admin_token(tmp_path, guarded=True)
    assert given == {"BARLOW_ADMIN_TOKEN": ADMIN}
    for token in (own, given):
        said = " ".join(access.how_to_use(tmp_path, "http://127.0.0.1:8000", token))
        assert token["BARLOW_ADMIN_TOKEN"] not in said
    with pytest.raises(ValueError, match="--no-token says that nobody needs a token, and BARLOW_ADMIN_TOKEN is one"):
        access.admin_token(tmp_path, guarded=False)
    monkeypatch.delenv("BARLOW_ADMIN_TOKEN")
    (tmp_path / "admin-token").chmod(0o644)
    with pytest.raises(ValueError, match="others can read it"):
        access.admin_token(tmp_path, guarded=True)


def _what_a_former_version_left_is_taken_over(up: Up) -> None:
    """Its folder is closed, its rows are there, its address still serves; who reads and writes rows is no superuser."""
    assert f"{up.directory} was open to others (mode 755); its mode is 700 now" in up.output
    (kept,) = httpx.get(f"{up.endpoints['api']}/api/v1/experiments", headers=up.bearer).json()["items"]
    assert kept["name"] == "of before"
    assert f"//barlow:{PASSWORD}@" in up.endpoints["database"]
    state = json.loads((up.directory / "local.json").read_text())
    with psycopg.connect(up.endpoints["database"]) as connection:
        assert connection.execute("SELECT rolname FROM pg_roles WHERE rolsuper").fetchall() == [("postgres",)]
        port = connection.info.port
        assert connection.execute(_OWNERS).fetchall() == [("barlow_owner",)]
    with psycopg.connect(f"postgresql://mlflow:{state['mlflow_password']}@127.0.0.1:{port}/mlflow") as own:
        assert own.execute("SELECT x FROM of_mlflow").fetchone() == (7,)
        assert own.execute(_OWNERS).fetchall() == [("mlflow",)]


def test_a_folder_of_other_things_is_not_closed_to_others(tmp_path: Path) -> None:
    (shared := tmp_path / "shared").mkdir()
    shared.chmod(0o755)
    (shared / "thesis.txt").write_text("three years")
    barlow = Path(sys.executable).with_name("barlow")
    done = subprocess.run([barlow, "up", "--data", shared], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"chmod 700 {shared}" in done.stderr
    assert shared.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in shared.iterdir()] == ["thesis.txt"]


def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['psutil'] = None; from service.command import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "up"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "barlow-lab[local]" in done.stderr
