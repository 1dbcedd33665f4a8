"""Jobs side by side in a terminal that is too narrow for their names and texts: numbers stay whole, texts end in …"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.api.comparison_schemas import Difference
from service.client.render import value_words

APART = 2
"""Blanks between columns."""
_TEXT = 12
"""Characters that are left of a text at least."""
_NAME = 28
"""Characters that are left of the name of a field at least, where there is more than one column beside it."""
_MEASURED = re.compile(r"[-+]?[\d.]+ \(.*\)")


def are_needed(console: Console, head: Sequence[str], tables: Sequence[tuple[str, Sequence[Difference]]]) -> bool:
    """Whether a table with these names as its head does not fit into a terminal; what is piped has all the room."""
    return console.is_terminal and any(
        max(map(len, [title, *(row.name for row in rows)]))
        + sum(APART + max(len(name), *(_longest([row], i) for row in rows)) for i, name in enumerate(head))
        > console.width
        for title, rows in tables
    )


def show(console: Console, title: str, rows: Sequence[Difference]) -> None:
    """A column for each job, under its number: in as many tables as the terminal needs."""
    columns = range(len(rows[0].values))
    least = [max([len(str(i + 1)), *(_least(row.values[i]) for row in rows)]) for i in columns]
    first = max(map(len, [title, *(row.name for row in rows)]))
    for group in abreast(least, console.width - min(first, _NAME)):
        taken = sum(least[i] + APART for i in group)
        name = min(first, console.width - taken)
        more = (console.width - taken - name) // len(group)
        table = Table(box=None, pad_edge=False, padding=(0, APART, 0, 0))
        table.add_column(title, width=name, no_wrap=True, overflow="ellipsis")
        for i in group:
            table.add_column(str(i + 1), width=min(_longest(rows, i), least[i] + more), overflow="fold")
        for row in rows:
            table.add_row(row.name, *(_cell(row.values[i]) for i in group))
        console.print(table)


def abreast(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns by number, as many in one table as there is room for."""
    tables: list[list[int]] = []
    left = 0
    for i, width in enumerate(widths):
        left -= width + APART
        if left < 0 or not tables:
            tables.append([])
            left = room - width - APART
        tables[-1].append(i)
    return tables


def _cell(value: Any) -> Text:
    """A list goes over several lines, so that no number of it is cut."""
    is_text = isinstance(value, str)
    return Text(value_words(value), no_wrap=is_text, overflow="ellipsis" if is_text else "fold")


def _longest(rows: Sequence[Difference], column: int) -> int:
    return max(len(value_words(row.values[column])) for row in rows)


def _least(value: Any) -> int:
    words = value_words(value)
    if isinstance(value, str):
        return len(words) if _MEASURED.fullmatch(words) else min(len(words), _TEXT)
    return max(map(len, words.split()), default=1)
