"""What is installed is known: a list of it, and locks with hashes for the images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {"api": {"service"}, "worker": {"worker", "trainer"}, "mlflow": {"tracking"}}
"""Image and the extras that it installs."""
IMAGES_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.0", "sys_platform": "linux"}
FILE = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def lock(name: str) -> dict[str, str]:
    """Distribution and version of a lock, each line of which is one of both or a hash of it."""
    lines = (ROOT / "docker" / f"requirements-{name}.txt").read_text().replace("\\\n", " ").splitlines()
    pins = {}
    for line in lines:
        if line.startswith("#"):
            continue
        pin, *hashes = line.split()
        assert hashes, line
        assert all(map(FILE.fullmatch, hashes)), line
        distribution, version = pin.split("==")
        pins[canonicalize_name(distribution)] = version
    return pins


def needed(extras: set[str]) -> set[str]:
    """Every distribution that these extras need in an image: by pyproject.toml, and by what is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {"": project["dependencies"], **project["optional-dependencies"]}
    found: set[tuple[str, str]] = set()
    queue = [("barlow-lab", extra) for extra in ("", *extras)]
    while queue:
        found.add(asked := queue.pop())
        name, extra = asked
        try:
            lines = ours[extra] if name == "barlow-lab" else requires(name) or []
        except PackageNotFoundError:  # of an older Python
            continue
        for requirement in map(Requirement, lines):
            for machine in ("x86_64", "aarch64"):
                environment = {**IMAGES_PYTHON, "platform_machine": machine, "extra": extra}
                if requirement.marker is None or requirement.marker.evaluate(environment):
                    other = canonicalize_name(requirement.name)
                    queue += {(other, more) for more in ("", *requirement.extras)} - found
    return {name for name, _ in found} - {"barlow-lab"}


@pytest.mark.parametrize("image", LOCKS)
def test_a_lock_holds_what_the_image_needs_and_nothing_else(image: str) -> None:
    assert lock(image).keys() == needed(LOCKS[image]), "make lock"


@pytest.mark.parametrize("name", ["build", *LOCKS])
def test_a_lock_has_the_versions_of_the_constraints_and_no_address(name: str) -> None:
    lines = (line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {canonicalize_name(distribution): version for distribution, version in lines}
    found = lock(name)
    assert found
    assert found.items() <= pinned.items(), "make lock"
    assert "://" not in (ROOT / "docker" / f"requirements-{name}.txt").read_text()


def test_what_builds_our_own_wheel_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["build-system"]["requires"] == [f"{name}=={version}" for name, version in lock("build").items()]


def test_the_images_install_nothing_without_a_hash() -> None:
    installs = re.findall(r"(?:pip|into) (?:install|wheel) [^'\\]*", (ROOT / "docker" / "Dockerfile").read_text())
    assert len(installs) == 4
    for install in installs:
        assert "--no-deps" in install
        assert ("--require-hashes" in install) != ("--no-index" in install or "--no-build-isolation" in install)


def test_a_stale_constraint_ends_the_lock_and_leaves_what_was_there(tmp_path: Path) -> None:
    """The tool that resolves is one that answers with a distribution that is pinned nowhere."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    resolver = tmp_path / "uv"
    resolver.write_text('#!/bin/sh\nwhile [ "$1" != --output-file ]; do shift; done\necho "Some.Thing==1.0" >"$2"\n')
    resolver.chmod(0o755)
    before = {path.name: path.read_text() for path in (tmp_path / "docker").iterdir()}
    command = ["sh", tmp_path / "docker" / "lock.sh"]
    done = subprocess.run(command, env={**os.environ, "UV": str(resolver)}, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr == "add to constraints.txt, which does not pin them: some-thing==1.0\n"
    assert {path.name: path.read_text() for path in (tmp_path / "docker").iterdir()} == before


def test_the_list_names_every_installed_distribution_and_is_the_same_each_time(tmp_path: Path) -> None:
    # The environment is that of this test, and as it should be.
    venv = os.path.relpath(sys.prefix, ROOT)
    made = []
    for file in (tmp_path / "first.json", tmp_path / "second.json"):
        command = ["make", "--assume-old", f"{venv}/installed", "sbom", f"VENV={venv}", f"SBOM={file}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made.append(file.read_bytes())
    assert made[0] == made[1]
    listed = {(canonicalize_name(item["name"]), item["version"]) for item in json.loads(made[0])["components"]}
    assert listed == {(canonicalize_name(found.metadata["Name"]), found.version) for found in distributions()}


def test_an_audit_that_reaches_no_advisories_says_so_in_a_line(tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **nowhere}
    command = ["sh", ROOT / "docker" / "audit.sh", Path(sys.prefix) / "bin" / "pip-audit"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("not audited: PyPI's advisories were not reached")
    assert done.stdout == ""
