"""An environment with the extra `service` alone starts the API: a front-end host needs no torch and no MLflow."""

import os
import shutil
import subprocess
import venv
from pathlib import Path

import httpx
import pytest

from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def service_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment that holds barlow-lab[service] and nothing else."""
    folder = tmp_path_factory.mktemp("service-only")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("barlow_lab", "service", "worker", "trainer", "recipes"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{source}[service]"],
        check=True,
        timeout=240,
    )
    return python


def test_the_api_starts_and_is_ready_for_requests(service_only: Path, database: Settings, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "BARLOW_DATABASE_URL": database.database_url.get_secret_value(),
        "BARLOW_RUNS_DIR": str(tmp_path),
        "BARLOW_API_PORT": "0",
    }
    script = (
        "import sys, threading, socket, uvicorn\n"
        "from service.api.app import create_app\n"
        "from service.settings import Settings\n"
        "listener = socket.socket(); listener.bind(('127.0.0.1', 0)); print(listener.getsockname()[1], flush=True)\n"
        "from importlib.resources import files\n"
        "assert files('barlow_lab').joinpath('specs/catalogue.json').is_file()\n"
        "assert files('trainer').joinpath('data/generated/digits.npz').is_file()\n"
        "loaded = {'torch', 'torchvision', 'mlflow', 'numpy', 'sklearn'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "uvicorn.Server(uvicorn.Config(create_app(Settings()), log_level='warning')).run(sockets=[listener])\n"
    )
    # Away from the checkout, so that only what was installed can be imported.
    api = subprocess.Popen(
        [service_only, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert api.stdout is not None
        port = api.stdout.readline().strip()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=5)) as client:
            assert client.get("/healthz", timeout=30).status_code == 200
            assert client.get("/docs/swagger-ui-bundle.js", timeout=30).status_code == 200
            spec = {"kind": "pretrain", "data": "digits", "backbone": {"name": "tiny"}, "batch_size": 64}
            answer = client.post("/api/v1/jobs", json=spec, timeout=30)
            assert answer.status_code == 201, answer.text
            page = client.get("/api/v1/compare.html", params={"experiment": "default"}, timeout=30)
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            listed = {item["name"] for item in client.get("/api/v1/recipes", timeout=30).json()["items"]}
            assert listed == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    finally:
        api.terminate()
        api.communicate(timeout=20)


def test_the_command_teaches_the_remedy_where_the_local_stack_is_missing(service_only: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        [service_only.parent / "barlow", "up"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode != 0
    assert "barlow-lab[local]" in answer.stdout + answer.stderr
