"""Links of Markdown pages, and what their headings are called in them."""

from __future__ import annotations

import re
from pathlib import Path


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
