"""Markdown of the pages that are made from the code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """`text` as a cell of a table: in one line, and no bar ends it."""
    return re.sub(r"\s+", " ", text).strip().replace("|", r"\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, with a blank line behind it; nothing where there are no rows."""
    lines = ["| " + " | ".join(cell(text) for text in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines, "", ""])


def code(text: object) -> str:
    """`text` in code type; nothing for an empty one."""
    return f"`{text}`" if str(text) else ""


def prose(text: str | None) -> str:
    """A docstring or description as paragraphs: angle brackets are no HTML, and stars no emphasis."""
    paragraphs = re.sub(r"([<*])", r"\\\1", (text or "").strip())
    return f"{paragraphs}\n\n" if paragraphs else ""
