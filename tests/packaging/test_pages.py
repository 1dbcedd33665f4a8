"""Links of the pages lead somewhere, to the heading where they name one; the glossary says each word once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(str(page.relative_to(ROOT)) for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))


def prose(text: str) -> str:
    """`text` without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in a link, as GitHub and the site call them."""
    names: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.+?) *$", prose(text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        names.append(re.sub(r"[^\w\- ]", "", shown).replace(" ", "-"))
    return {name if not (before := names[:at].count(name)) else f"{name}-{before}" for at, name in enumerate(names)}


def dead_links(page: Path) -> list[str]:
    """Links to files that are not there, or to headings that their page has not."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(link)
    return dead


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
