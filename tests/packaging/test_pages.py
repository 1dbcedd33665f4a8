"""Links of the pages lead somewhere, to the heading where they name one; the glossary says each word once; the
reference pages of the site name all that the code has."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from page_links import dead_links, prose
from pydantic import SecretStr, TypeAdapter

from barlow_lab.specs.data_sets import DataSource
from barlow_lab.specs.kinds import KINDS
from service.api.app import create_app
from service.api.roles import LEAST_ROLE
from service.settings import Settings
from service.tracking.settings import TrackingSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(str(page.relative_to(ROOT)) for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files_and_headings(page: str) -> None:
    assert dead_links(ROOT / page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A `b`: c\n[1](#a-b-c) [2](#b) [3](b.md) [4](b.md#two-1)\n```\n[5](no.md)\n```\n")
    (tmp_path / "b.md").write_text(
        "## Two\n## Two\n```\n# not one\n```\n[6](a.md#not-one) [7](https://example.org/#x)\n"
    )
    assert dead_links(tmp_path / "a.md") == ["#b"]
    assert dead_links(tmp_path / "b.md") == ["a.md#not-one"]


def test_the_glossary_says_each_word_once_and_in_order() -> None:
    page = prose((ROOT / "docs/glossary.md").read_text())
    for section in page.split("\n## ")[1:]:
        terms = re.findall(r"^- \*\*(.+?)\*\*", section, re.MULTILINE)
        assert terms == sorted(terms, key=str.lower), section.partition("\n")[0]
    repeated = Counter(re.findall(r"^- \*\*(.+?)\*\*", page, re.MULTILINE))
    assert [term for term, times in repeated.items() if times > 1] == []


def test_the_site_has_every_page_once() -> None:
    contents = runpy.run_path(str(ROOT / "docs/site/contents.py"))["CONTENTS"]
    listed = [re.sub(r".*<(.*)>", r"\1", page) + ".md" for pages in contents.values() for page in pages]
    assert sorted(listed) == PAGES


def test_methods_and_claims_name_recipes_that_are_there_and_every_experiment() -> None:
    recipes = {path.name: path.read_text("utf-8") for path in (ROOT / "recipes").glob("*.yaml")}
    science = (ROOT / "docs/science.md").read_text()
    named = re.findall(r"([\w-]+\.yaml)", science + (ROOT / "docs/methods.md").read_text())
    assert set(named) - set(recipes) == set()
    asked = set(re.findall(r"`barlow submit recipes/([\w-]+\.yaml)`", science))
    assert asked == {name for name, text in recipes.items() if "under test" in text.split("\nname")[0]}


def test_every_field_says_what_it_is() -> None:
    """Of the specs of all kinds, of experiments, of datasets.yaml, of the settings, and of what the API answers."""
    asked = [TypeAdapter(model) for model in (*KINDS.values(), DataSource, Settings, TrackingSettings)]
    schemas = [adapter.json_schema() for adapter in asked]
    models = {name: model for schema in schemas for name, model in schema.get("$defs", {}).items()}
    models |= {schema["title"]: schema for schema in schemas if "title" in schema}
    nowhere = Settings(database_url=SecretStr("postgresql://nobody@localhost/nothing"))
    models |= create_app(nowhere).openapi()["components"]["schemas"]
    # What FastAPI adds by itself, and is never sent.
    of_ours = {name: model for name, model in models.items() if name not in ("HTTPValidationError", "ValidationError")}
    known = {
        "PretrainSpec",
        "PclSpec",
        "ViewSpec",
        "CocoSource",
        "ExperimentSpec",
        "Settings",
        "JobDetail",
        "Comparison",
    }
    assert known <= set(of_ours)
    fields = (
        (name, field, said) for name, model in of_ours.items() for field, said in model.get("properties", {}).items()
    )
    assert [f"{name}.{field}" for name, field, said in fields if not said.get("description")] == []


def test_the_reference_pages_name_every_field_route_command_and_setting(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs/site/reference_pages.py", tmp_path], check=True, timeout=120)
    pages = {path.name: path for path in tmp_path.iterdir()}
    assert [link for path in pages.values() for link in dead_links(path)] == []
    empty = [row for path in pages.values() for row in path.read_text().splitlines() if row.endswith("|  |")]
    assert empty == []  # what each field, parameter, option and setting is
    for kind, model in KINDS.items():
        text = pages[f"kind-{kind}.md"].read_text()
        names = [field.alias or name for name, field in model.model_fields.items()]
        assert [name for name in names if f"| `{name}` |" not in text] == []
    for said in ("| `lambda` | number, > 0.0 | `0.0051` |", "| `queue` | integer, ≥ 1 | `16384` |"):
        assert said in pages["objectives.md"].read_text()
    routes = pages["http.md"].read_text()
    assert [route for route in LEAST_ROLE if f"### {route.replace(' ', ' /api/v1', 1)}\n" not in routes] == [
        "GET /metrics"
    ]
    settings = pages["settings.md"].read_text()
    assert [name for name in Settings.model_fields if f"| `BARLOW_{name.upper()}` |" not in settings] == []
    commands = pages["commands.md"].read_text()
    for said in ("### barlow submit\n", "### barlow token create\n", "### barlow up\n", "| `--watch`", "--run-dir DIR"):
        assert said in commands
