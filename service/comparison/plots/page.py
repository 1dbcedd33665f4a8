"""The page: what is compared as data, plotly.js, and what draws the one with the other, in a single file.

A content security policy in the page itself names its scripts by their digests and allows nothing else, wherever it is
opened from; an answer over HTTP has the same one.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from html import escape
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.comparison.lined_up import line_up
from service.comparison.plots import GENERATOR
from service.comparison.plots.choice import grouped, without_retried
from service.comparison.plots.curves import curves
from service.comparison.plots.matrices import matrices
from service.comparison.plots.scores import scores
from service.comparison.plots.tables import last_values, score_table
from service.database.tables import Experiment, Job

_NAMED = 3
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="generator" content="{generator}">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>{subtitle}</p></header>
<main id="figures"><noscript><p>The figures need JavaScript; the tables below do not.</p></noscript></main>
<section><h2>Scores</h2>{scores}</section>
<section><h2>Last values</h2>{values}</section>
<script type="application/json" id="data">{data}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class ComparePage:
    """A page, and the content security policy that an answer with it has."""

    html: str
    policy: str


def compare_page(session: Session, runs_dir: Path, jobs: Sequence[Job], *, whole: bool) -> ComparePage:
    """The jobs compared on one page, which holds as much as its modules say and tells what it leaves out.

    `whole`: they are all of an experiment, and not named each; those that another one is a retry of are left out then.
    """
    shown = without_retried(jobs) if whole else list(jobs)
    groups = grouped(session, shown)
    lined = line_up(session, shown)
    found: dict[str, Any] = {
        "groups": [{"name": group.name, "n": len(group.jobs)} for group in groups],
        "curves": curves(session, groups),
        "matrices": matrices(session, runs_dir, groups),
        "scores": scores(lined),
    }
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    subtitle = f"{len(shown):,} jobs, as of {made}."
    if replaced := len(jobs) - len(shown):
        subtitle += f" {replaced:,} are left out, for a retry stands for each."
    library, script, style = _parts()
    html = _PAGE.format(
        policy=escape(_policy()),
        generator=GENERATOR,
        title=escape(_title(session, jobs)),
        subtitle=escape(subtitle),
        style=style,
        scores=score_table(lined),
        values=last_values(found["curves"], [group.name for group in groups]),
        data=_data(found),
        library=library,
        script=script,
    )
    return ComparePage(html, f"{_policy()}; frame-ancestors 'none'")


def _title(session: Session, jobs: Sequence[Job]) -> str:
    """Names of experiments: a job is found there."""
    wanted = {job.experiment_id for job in jobs}
    names = session.scalars(select(Experiment.name).where(Experiment.id.in_(wanted)).order_by(Experiment.id)).all()
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _data(found: Any) -> str:
    """JSON that ends no script, whatever the names in it are."""
    text = json.dumps(found, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


@cache
def _parts() -> tuple[str, str, str]:
    """plotly.js, our own script and our style. The package of the first is slow to import, and is not."""
    library = Path(str(distribution("plotly").locate_file("plotly/package_data/plotly.min.js"))).read_text("utf-8")
    own = files("service.comparison.plots")
    script, style = (own.joinpath(name).read_text("utf-8") for name in ("page.js", "page.css"))
    # A line ends with a line feed where a page is read, and so it does in what a digest is of.
    return library.replace("\r\n", "\n").replace("</script", "<\\/script"), script, style


@cache
def _policy() -> str:
    library, script, _ = _parts()
    # plotly.js writes styles into the page by itself. `data:` are matrices, which it draws as pictures.
    return (
        f"default-src 'none'; script-src {_digest(library)} {_digest(script)}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
