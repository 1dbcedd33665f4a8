"""`barlow up` as a user runs it: one start after another on the same directory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import httpx
from running_stack import Up, wait_until

_JOB = {
    "kind": "knn",
    "name": "floor",
    "data": {"name": "digits"},
    "images": {"size": 32, "resize": 32},
    "backbone_from": {"pixels": True},
}


def _ready(api: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{api}/readyz").status_code == 200
    return False


def test_up_through_its_life(fresh_stack: Up) -> None:
    up, directory = fresh_stack, fresh_stack.directory
    up.start()
    api = up.endpoints["api"]
    assert set(up.endpoints) == {"api", "mlflow", "database"}
    assert all(up.endpoints[name].startswith("http://127.0.0.1:") for name in ("api", "mlflow"))
    for private in (directory, *(directory / name for name in ("endpoints.json", "local.json", "redis/redis.conf"))):
        assert private.stat().st_mode & 0o077 == 0, private
    assert _ready(api)
    made = httpx.post(f"{api}/api/v1/jobs?experiment=kept", json=_JOB)
    assert made.status_code == 201, made.text

    barlow = Path(sys.executable).with_name("barlow")
    second = subprocess.run([barlow, "up", "--data", directory], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"already runs on {directory} (process {up.process.pid})" in " ".join(second.stderr.split())

    # A child that dies is started again, and it is said; the node's name is not blocked by its dead worker.
    for name, module in (("scheduler", "service.scheduling"), ("worker", "worker")):
        dead = up.child(module)
        dead.kill()
        wait_until(lambda name=name: f"{name} ended with exit code -9; starting it again" in up.output, 30)
        wait_until(lambda module=module, dead=dead: [p for p in up.modules(module) if p.pid != dead.pid] != [], 30)

    # Nothing outlives a killed `up`, and the next one goes on where it was.
    up.kill()
    before = up.endpoints
    directory.chmod(0o755)  # as former versions made it
    up.start()
    assert up.endpoints == before
    assert f"{directory} was open to others (mode 755); its mode is 700 now" in up.output
    assert directory.stat().st_mode & 0o777 == 0o700
    (kept,) = httpx.get(f"{api}/api/v1/jobs?experiment=kept").json()["items"]
    assert kept["id"] == made.json()["id"]
    job = f"{api}/api/v1/jobs/{kept['id']}"
    wait_until(lambda: httpx.get(job).json()["state"] == "succeeded", 60)

    assert up.stop() == 0, up.output
    assert up.processes() == []
    assert not (directory / "endpoints.json").exists()


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
