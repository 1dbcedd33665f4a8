"""The wheel that `make wheel` makes: every file of the packages is in it, and it runs where no checkout is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PACKAGES = ("barlow_lab", "service", "trainer", "worker")
RECIPES = f"barlow_lab-{VERSION}.data/data/share/barlow-lab/recipes"


def run(command: list[str | Path], folder: Path) -> str:
    """What a command says that ends well, started in a folder that is its home, too."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # The environment is that of this test, and as it should be.
    venv = os.path.relpath(sys.prefix, ROOT)
    made = ["make", "--directory", ROOT, "--assume-old", f"{venv}/installed", "wheel", f"VENV={venv}"]
    run([*made, f"DIST={folder}/dist"], folder)
    (found,) = (folder / "dist").iterdir()
    assert found.name == f"barlow_lab-{VERSION}-py3-none-any.whl"
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a fresh environment that holds the wheel. What it depends on is that of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    venv = folder / "env"
    run([sys.executable, "-m", "venv", "--without-pip", venv], folder)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel], folder)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(venv)}))
    # Only added as a folder: the .pth by which the checkout is found in this environment is not read there.
    (packages / "more.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin"


def test_no_file_is_forgotten_and_none_is_added(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    there = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert packed == there | {f"{RECIPES}/{path.name}" for path in (ROOT / "recipes").iterdir()}


def test_every_package_is_imported_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Also what a worker and the API begin with."""
    code = f"import {', '.join(PACKAGES)}, worker.__main__, service.api.app\n"
    code += f"print(*(each.__file__ for each in ({', '.join(PACKAGES)})))"
    for found in run([installed / "python", "-c", code], tmp_path).split():
        assert Path(found).is_relative_to(installed.parent), found


def test_the_commands_start_and_recipes_are_found(installed: Path, tmp_path: Path) -> None:
    assert "barlow submit" in run([installed / "barlow", "--help"], tmp_path)
    assert run([installed / "barlow", "--version"], tmp_path) == f"barlow-lab {VERSION}\n"
    code = "from service import recipes; from service.settings import Settings\n"
    code += "print(recipes.folder(Settings(database_url='postgresql://unused')))"
    folder = Path(run([installed / "python", "-c", code], tmp_path).strip())
    assert folder.is_relative_to(installed.parent)
    assert "pretrain" in run([installed / "barlow", "spec", folder / "digits.yaml"], tmp_path)


def test_a_pretraining_runs(installed: Path, tmp_path: Path) -> None:
    spec = {
        "kind": "pretrain",
        "data": {"name": "digits", "limit": 64},
        "backbone": {"name": "tiny"},
        "projector": {"widths": [16, 16]},
        "batch_size": 32,
        "epochs": 1,
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    run([installed / "barlow-train", "--threads", "1", "spec.json", "--run-dir", "run"], tmp_path)
    (outcome,) = (tmp_path / "run").rglob("outcome.json")
    assert json.loads(outcome.read_text())["step"] == 2
    assert (tmp_path / "run" / "backbone" / "model.safetensors").is_file()
