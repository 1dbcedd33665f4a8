"""What people look for at the top of a repository says what is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tokenize
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_licence_and_citation_agree_with_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"] == metadata("barlow-lab")["License-Expression"] == "Apache-2.0"
    assert (citation["version"], citation["title"]) == (PROJECT["version"], "Barlow Lab")
    assert citation["authors"] == PROJECT["authors"]
    assert citation.get("repository-code") == PROJECT.get("urls", {}).get("Repository")
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_version_is_that_of_the_newest_changes_and_of_the_release_described() -> None:
    version = re.escape(PROJECT["version"])
    (heading, *_) = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert re.match(rf"{version}, (not released yet|\d{{4}}-\d\d-\d\d)(:|$)", heading)
    described = re.findall(r"v(\d+\.\d+\.\d+)|barlow_lab-(\d+\.\d+\.\d+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert {number for pair in described for number in pair if number} == {PROJECT["version"]}


def test_a_commit_is_held_to_what_ci_holds_it_to() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    recipe = re.search(r"^lint: install\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert hooks == [line.removeprefix("\t$(BIN)/").removesuffix(" $(ARROWS)") for line in recipe[1].splitlines()]


def test_names_of_tests_are_shorter_than_80_characters() -> None:
    texts = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = [name for text in texts for name in re.findall(r"^ *(?:async )?def (test_\w+)", text, re.MULTILINE)]
    assert len(names) > 1000
    assert [name for name in names if len(name) >= 80] == []


@pytest.mark.parametrize("module", ["service.command", "trainer"])
def test_a_command_says_its_version(module: str) -> None:
    said = subprocess.run(
        [sys.executable, "-P", "-m", module, "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout == f"barlow-lab {PROJECT['version']}\n"


@pytest.mark.parametrize("page", ["decisions.md", *sorted(page.name for page in (ROOT / "docs").glob("a*.md"))])
def test_a_page_for_those_who_change_it_names_files_that_are_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = set(re.findall(r"`((?:barlow_lab|service|trainer|worker|tests|recipes)/[\w/.-]+)`", text))
    assert [path for path in named if not (ROOT / path).exists() and "NAME" not in path] == []


def test_the_tests_that_prove_a_promise_are_there() -> None:
    named = set(re.findall(r"`((?:\w+/)*test_\w+)`", (ROOT / "docs/reliability.md").read_text()))
    files = {path.relative_to(ROOT / "tests").with_suffix("") for path in (ROOT / "tests").rglob("test_*.py")}
    known = {str(path) for path in files} | {path.name for path in files}
    assert len(named) > 50
    assert named - known == set()


SHAPE = re.compile(r"_([w\d]*n[dmrf]|[w\d]+d|[bkrcmd]d|rc|\d*n\d+(?:ss)?|nss|\dhw)$")
"""Names of tensors that end in a letter for each dimension."""


@pytest.mark.parametrize("folder", ["trainer", "benchmarks", "tests"])
def test_a_file_with_shapes_in_names_says_what_the_letters_are(folder: str) -> None:
    without = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        with path.open("rb") as file:
            names = {token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME}
        letters = {letter for name in names if (found := SHAPE.search(name)) for letter in found[1] if letter.isalpha()}
        legend = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("Shape suffixes:")[2]
        if missing := letters - set(re.findall(r"\b[a-z]\b", legend)):
            without[str(path.relative_to(ROOT))] = missing
    assert without == {}
