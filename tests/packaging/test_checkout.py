"""`make` in a checkout that cannot be written, in a path with blanks: environment and data go elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = ("VENV", "DATA", "PYTHON", "MAKEFLAGS", "MAKELEVEL")

ELSEWHERE = {"PIP_USER": "1", "PIP_TARGET": "/nonexistent", "PIP_PREFIX": "/nonexistent", "PYTHONHOME": "/nonexistent"}
"""What somebody's shell has for other projects."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip and the demo need of a checkout, without write bits, below a folder of mode 700."""
    folder = tmp_path_factory.mktemp("root") / "a checkout"
    folder.mkdir(mode=0o700)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for package in ("barlow_lab", "service", "worker", "trainer", "recipes"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*folder.rglob("*"), folder):
        path.chmod(path.stat().st_mode & ~0o222)
    return folder


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as somebody for whom write bits count: root without the right to pass over them."""
    rights = ["setpriv", "--bounding-set=-dac_override", "--"] if os.geteuid() == 0 else []
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN} | ELSEWHERE
    command = [*rights, "make", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_the_environment_of_a_checkout_that_cannot_be_written_goes_elsewhere(checkout: Path, tmp_path: Path) -> None:
    """The packages are those of this environment, so that pip installs ours alone."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(venv)}))
    (packages / "more.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert make(checkout, "install").returncode != 0, "it can be written"

    done = make(checkout, "install", f"VENV={venv}")
    assert done.returncode == 0, done.stderr
    asked = [venv / "bin" / "python", "-P", "-c", "import service; print(service.__file__)"]
    found = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found) == checkout / "service" / "__init__.py"
    assert make(checkout, "--question", "install", f"VENV={venv}").returncode == 0, "nothing to do twice"

    demo = make(checkout, "--dry-run", "demo", f"VENV={venv}", f"DATA={tmp_path}/the data").stdout
    assert demo.strip() == f"{venv}/bin/barlow demo --data '{tmp_path}/the data'"
    nowhere = make(checkout, "demo", f"VENV={venv}")
    assert nowhere.returncode != 0
    assert "demo-data cannot be used" in nowhere.stdout
    assert "choose another --data" in nowhere.stdout


def test_a_folder_of_other_things_does_not_become_an_environment(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    done = make(checkout, "install", f"VENV={tmp_path}")
    assert done.returncode != 0
    assert "holds something else than an environment" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert "no blank" in make(checkout, "install", f"VENV={tmp_path}/a venv").stderr


@pytest.mark.parametrize("version", [(3, 10), (3, 15)])
def test_another_python_is_refused_in_the_first_line(checkout: Path, tmp_path: Path, version: tuple[int, int]) -> None:
    """A Python that takes itself for another version: such ones are not installed everywhere."""
    other = tmp_path / "python"
    code = f"import sys; sys.version_info = ({version[0]}, {version[1]}, 0); exec(sys.argv.pop(1))"
    other.write_text(f'#!/bin/sh\nshift; exec {sys.executable} -c "{code}" "$@"\n')
    other.chmod(0o755)
    done = make(checkout, "install", f"VENV={tmp_path}/venv", f"PYTHON={other}")
    assert done.returncode != 0
    first = done.stderr.splitlines()[0]
    assert first.startswith("Barlow Lab needs Python 3.11, 3.12, 3.13 or 3.14, and ")
    assert f" is {version[0]}.{version[1]}: make PYTHON=" in first
