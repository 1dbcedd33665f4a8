"""What `barlow compare` and `barlow recipes` print: evaluations lined up, jobs side by side, files to start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from barlow_lab.specs.kinds import MAKERS
from barlow_lab.specs.protocols import shown_protocol
from service.api.comparison_schemas import Comparison, Difference
from service.api.schemas import Recipes
from service.client import narrow_columns
from service.client.narrow_columns import APART, abreast
from service.client.render import plain_table, print_table, value_words
from service.comparison.models import Cell, Evaluated, ScoreRow
from service.ledger.states import JobState

_LEGEND = "percent, of the last test; in brackets the best one's, if another; ±: standard deviation of n seeds or jobs"
_LESS = "    less published"
_PUBLISHED = "published"
_MOST_NAMED = 30
"""Jobs without a result."""
_SHOWN_ABOVE = ("/protocol", "/departures", "/headline", "/scores")
"""What of a result stands in the table of scores."""


def experiment(console: Console, compared: Comparison) -> None:
    """What was measured of whose backbone: a line a score, a column a backbone, published numbers beside them."""
    if not compared.scores:
        console.print("no evaluation of it has succeeded yet")
    titles = list(dict.fromkeys(_title(row) for row in compared.scores))
    first = max([len(_LESS), *(len(row.score) + 2 for row in compared.scores)])
    published = any(row.published is not None for row in compared.scores)
    room = console.width - first - APART - (len(_PUBLISHED) if published else 0)
    widths = [
        _width([backbone], [row.cells[i] for row in compared.scores], room - APART)
        for i, backbone in enumerate(compared.backbones)
    ]
    for number, title in enumerate(titles):
        rows = [row for row in compared.scores if _title(row) == title]
        console.print(Text(f"{chr(10) if number else ''}{title}", style="bold"))
        told = any(row.published is not None for row in rows)
        for columns in abreast(widths, room):
            shown = [row.model_copy(update={"cells": [row.cells[i] for i in columns]}) for row in rows]
            names = [compared.backbones[i] for i in columns]
            console.print(_lined_up(shown, names, first, [widths[i] for i in columns], told))
    if compared.scores:
        console.print(Text(_LEGEND, style="dim"))
    _remarks(console, compared)
    judged = {one.job for one in compared.evaluations}
    others = [
        job
        for job in compared.jobs
        if job.id not in judged and (job.state != JobState.SUCCEEDED or job.kind not in MAKERS)
    ]
    for job in others[:_MOST_NAMED]:
        console.print(Text(f"not in it: {job.name} ({job.kind}, {job.state})"))
    if len(others) > _MOST_NAMED:
        console.print(Text(f"not in it: {len(others) - _MOST_NAMED:,} others, which `barlow jobs` lists"))


def jobs(console: Console, compared: Comparison) -> None:
    """Jobs side by side: their scores beside what was published, where their specs differ, their last metrics."""
    head = [f"{job.experiment}/{job.name} ({job.state})" for job in compared.jobs]
    judged = {one.job: one for one in compared.evaluations}
    sections = (
        ("evaluation", _evaluations([judged.get(job.id) for job in compared.jobs]) if judged else []),
        ("spec, where they differ", compared.spec),
        ("result", [row for row in compared.results if not row.name.startswith(_SHOWN_ABOVE) or not judged]),
        ("last metrics", compared.metrics),
    )
    tables = [(title, rows) for title, rows in sections if rows]
    if narrow_columns.are_needed(console, head, tables):
        for number, words in enumerate(head, 1):
            console.print(Text(f"{number}  {words}", overflow="fold"))
        for title, rows in tables:
            narrow_columns.show(console, title, rows)
    else:
        for title, rows in tables:
            print_table(console, _side_by_side(title, head, rows))
    if judged:
        _remarks(console, compared)
    if not compared.spec:
        data = ", their data do" if any(map(_other_data, compared.results)) else ""
        console.print(f"their specs do not differ{data}")


def _other_data(row: Difference) -> bool:
    """Whether the jobs that tell a fingerprint of their images tell different ones; results of former versions had none
    of a pretraining."""
    told = {value for value in row.values if value is not None}
    return row.name.startswith("/data/") and row.name.endswith("fingerprint") and len(told) > 1


def recipes(console: Console, found: Recipes) -> None:
    """Spec files: what each is, what was published of it, and where."""
    for recipe in found.items:
        console.print(Text(recipe.name, style="bold"), Text(f"({recipe.what})", style="dim"))
        if recipe.fault is not None:
            console.print(Text(f"  it cannot be submitted: {recipe.fault}", style="red"))
        elif recipe.description:
            console.print(Text(f"  {recipe.description}"))
        for row in recipe.published:
            job = f"{row.job}: " if row.job else ""
            scores = ", ".join(f"{name} {value:g}" for name, value in row.scores.items())
            console.print(Text(f"  published  {job}{scores} % - {row.source}"))
    console.print("print one with `barlow recipes NAME`, and redirect it to a file of yours to change and submit")


def _title(row: ScoreRow) -> str:
    return f"{shown_protocol(row.protocol)} on {row.data}{f' ({row.variant})' if row.variant else ''}"


def _lined_up(
    rows: Sequence[ScoreRow], backbones: Sequence[str], first: int, widths: Sequence[int], published: bool
) -> Table:
    """The scores of one protocol on one data set; columns as wide as in the other tables."""
    table = Table(box=None, pad_edge=False, padding=(0, APART, 0, 0))
    table.add_column("", no_wrap=True, width=first, overflow="fold")
    for backbone, width in zip(backbones, widths, strict=True):
        table.add_column(backbone, min_width=width, width=width, vertical="bottom", overflow="fold")
    if published:
        table.add_column(_PUBLISHED, no_wrap=True, overflow="fold")
    for row in rows:
        told = [] if row.published is None else [f"{row.published:g}"]
        style = "bold" if row.headline else ""
        table.add_row(f"  {row.score}", *(_cell(cell) for cell in row.cells), *told, style=style)
        theirs = [None if cell is None else cell.published for cell in row.cells]
        if row.published is None and any(one is not None for one in theirs):
            table.add_row("    published", *("" if one is None else f"{one:g}" for one in theirs), style="dim")
        gaps = ["" if c is None or c.published is None else f"{c.last - c.published:+.1f}" for c in row.cells]
        if any(gaps):
            table.add_row(_LESS, *gaps, style="dim")
    return table


def _width(names: Sequence[str], cells: Sequence[Cell | None], room: int) -> int:
    """The width of a column: its cells on one line, its title on as many as it takes, with a long word folded for
    `room`."""
    words = [min(len(word), room) for name in names for word in name.split()]
    return max(words + [len(_cell(cell)) for cell in cells])


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    last, best = f"{cell.last:.1f}", f"{cell.best:.1f}"
    spread = f" ± {cell.deviation:.1f} n={cell.n}" if cell.deviation is not None else ""
    return last + spread + (f" ({best})" if best != last else "")


def _evaluations(judged: Sequence[Evaluated | None]) -> list[Difference]:
    """Rows of a side-by-side table: what each evaluation is, then every score, with what was published below it."""

    def row(name: str, words: Callable[[Evaluated], str | None]) -> Difference:
        return Difference(name=name, values=[words(one) if one is not None else None for one in judged])

    rows = [
        row("protocol", lambda one: shown_protocol(one.protocol)),
        row("data", lambda one: one.data),
        row("backbone", lambda one: one.backbone),
        row("headline", lambda one: one.headline),
    ]
    for name in dict.fromkeys(score.name for one in judged if one for score in one.scores):
        rows.append(row(name, partial(_measured, name)))
        told = row(f"{name}, published", partial(_published, name))
        rows += [told] if any(told.values) else []
    return rows


def _measured(name: str, one: Evaluated) -> str | None:
    return next((f"{s.last:.2f} (best {s.best:.2f})" for s in one.scores if s.name == name), None)


def _published(name: str, one: Evaluated) -> str | None:
    told = (s for s in one.scores if s.name == name and s.published is not None)
    return next((f"{s.published:g} (ours {s.difference:+.2f})" for s in told), None)


def _remarks(console: Console, compared: Comparison) -> None:
    """Where a job left its protocol, and where the published numbers stand."""
    names = {job.id: job.name for job in compared.jobs}
    alike: dict[str, list[str]] = {}
    for one in compared.evaluations:
        if one.departures:
            fields = sorted(one.departures.items())
            said = "; ".join(f"{f} {value_words(v['here'])}, not {value_words(v['protocol'])}" for f, v in fields)
            alike.setdefault(f"not quite {shown_protocol(one.protocol)}: {said}", []).append(names[one.job])
    for said, jobs in alike.items():
        console.print(Text(f"{', '.join(jobs)}: {said}"))
    for source in dict.fromkeys(one.published_in for one in compared.evaluations if one.published_in):
        console.print(Text(f"published: {source}"))


def _side_by_side(title: str, head: Sequence[str], rows: Sequence[Difference]) -> Table:
    table = plain_table(title, *head)
    for row in rows:
        table.add_row(row.name, *(Text(value_words(value)) for value in row.values))
    return table
