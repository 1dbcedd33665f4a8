"""Tables of the `barlow` command in terminals of every width."""

from __future__ import annotations

import io

import pytest

from service.client.render import plain_table, print_table
from service.client.terminal import Terminal

ROWS = [
    ("digits", "train 1,437, test 360", "1,797 handwritten digits of scikit-learn, 8x8 grey levels"),
    ("textures-of-the-lab", "train 4,096", "what it is made of, in a line that is longer than a narrow terminal"),
]


@pytest.mark.parametrize("width", [30, 80, 100, 130, 200])
def test_no_column_is_cut_and_the_last_is_folded(width: int) -> None:
    written = io.StringIO()
    terminal = Terminal(file=written, width=width, force_terminal=True, color_system=None, soft_wrap=True)
    table = plain_table("name", "splits", "what")
    for row in ROWS:
        table.add_row(*row)
    print_table(terminal, table)
    said = written.getvalue()
    for name, splits, what in ROWS:
        assert f"{name}  " in said
        assert splits in said
        assert all(word in said for word in what.split())
    longest = max(len(line.rstrip()) for line in said.splitlines())
    assert longest <= max(width, len("textures-of-the-lab  train 1,437, test 360  ") + 24)
