"""The numbers behind the figures as tables of HTML, to be read without a pointer and without scripts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from service.comparison.lined_up import LinedUp
from service.comparison.models import Cell
from service.comparison.plots.scores import MOST_BACKBONES, title


def score_table(lined: LinedUp) -> str:
    """A line for each backbone, a column for each score: mean ± deviation (n)."""
    if not lined.scores:
        return "<p>No evaluation among these jobs has ended well.</p>"
    rows = [
        [name, *(_spread(cell) for row in lined.scores for cell in [row.cells[place]])]
        for place, name in enumerate(lined.backbones[:MOST_BACKBONES])
    ]
    if any(row.published is not None for row in lined.scores):
        rows.append(["published", *("" if row.published is None else f"{row.published:g}" for row in lined.scores)])
    table = _table(["backbone", *(f"{title(row)} [%]" for row in lined.scores)], rows)
    less = len(lined.backbones) - MOST_BACKBONES
    return table + (f"<p>{less:,} more backbones are left out.</p>" if less > 0 else "")


def last_values(found: Mapping[str, Any], names: Sequence[str]) -> str:
    """A line for each group, a column for each metric: the mean of what its jobs have last."""
    metrics: Mapping[str, Any] = found["metrics"]
    if not metrics:
        return "<p>None of these jobs has told a metric yet.</p>"
    last: dict[int, dict[str, list[float]]] = {}
    for key, metric in metrics.items():
        for group, _, _, values in metric["lines"]:
            if values[-1] is not None:
                last.setdefault(group, {}).setdefault(key, []).append(values[-1])
    rows = [[names[group], *(_mean(of.get(key, [])) for key in metrics)] for group, of in sorted(last.items())]
    return _table(["job", *(f"{key} [{one['unit']}]" if one["unit"] else key for key, one in metrics.items())], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # A long name of a metric is broken between its words.
    names = "".join(f'<th scope="col">{escape(name).replace("_", "_<wbr>")}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def _spread(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.last:.2f}" + ("" if cell.deviation is None else f" ± {cell.deviation:.2f} (n={cell.n})")


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{statistics.fmean(values):.5g}" + (f" (n={len(values)})" if len(values) > 1 else "")
