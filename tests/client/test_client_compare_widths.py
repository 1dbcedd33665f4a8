"""What `barlow compare` prints fits terminals of 60, 80 and 100 columns: no number is cut, and texts end in …"""

from __future__ import annotations

import io
import uuid
from typing import Any

import pytest
from rich.console import Console

from service.api.comparison_schemas import ComparedJob, Comparison, Difference
from service.client import render_comparison
from service.comparison.models import Cell, ScoreRow
from service.ledger.states import JobState

WIDTHS = (60, 80, 100)
NAMES = [f"pretrain-lambda_{rate}-widths_128x128x128" for rate in ("0.002", "0.01", "0.05")]


def compared(jobs: int = 0, **parts: Any) -> Comparison:
    facts = {"kind": "pretrain", "state": JobState.SUCCEEDED, "experiment": "textures-lambda", "spec_digest": ""}
    names = [f"{NAMES[0]}-seed_{seed}" for seed in range(jobs)]
    of = [ComparedJob(id=uuid.uuid4(), name=name, **facts) for name in names]
    none: dict[str, Any] = {part: [] for part in Comparison.model_fields if part != "jobs"}
    return Comparison(jobs=of, **none | parts)


def printed(show: Any, of: Comparison, width: int, *, terminal: bool = True) -> list[str]:
    out = io.StringIO()
    # As service.client.terminal has it: what is too long a line is the terminal's to fold.
    show(Console(file=out, width=width, force_terminal=terminal, color_system=None, soft_wrap=True), of)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", WIDTHS)
def test_columns_of_seeds_stay_whole_in_as_many_tables_as_it_takes(width: int) -> None:
    cells = [
        Cell(last=m, best=m + 1.5, deviation=d, n=5, published=None, jobs=[]) for m, d in ((87.3, 2.0), (9.1, 11.2))
    ]
    row = {"protocol": "knn/1", "data": "textures", "variant": "", "score": "top1", "headline": True, "published": None}
    of = compared(
        backbones=[*(f"{name}, 5 seeds" for name in NAMES[:2]), "raw pixels"],
        scores=[ScoreRow(**row, cells=[*cells, None])],
    )
    said = printed(render_comparison.experiment, of, width)
    table = [line.rstrip() for line in said if line.startswith(" ")]
    assert max(map(len, table)) <= width
    text = "\n".join(table)
    for number in ("87.3 ± 2.0 n=5 (88.8)", "9.1 ± 11.2 n=5 (10.6)"):
        assert number in text
    assert "…" not in text


@pytest.mark.parametrize("width", WIDTHS)
def test_two_jobs_side_by_side_fit_under_their_numbers(width: int) -> None:
    rows = {
        "/projector/widths": ([8192, 8192, 8192, 8192, 8192], [128, 128, 128]),
        "/run/published/source": ("A table of somebody whose citation is long, with its year, 2021", None),
    }
    metrics = {"correlation_off_diagonal_rms": (1.23456e-5, 0.0123457), "loss": (12.3456, 1234567.0)}
    scores = {"/somewhere/else/with/a/long/way/to/it": ("70.04 (best 71.50)", "30.00 (best 30.00)")}
    told = {
        part: [Difference(name=name, values=list(values)) for name, values in found.items()]
        for part, found in (("spec", rows), ("metrics", metrics), ("results", scores))
    }
    said = printed(render_comparison.jobs, compared(2, **told), width)
    legend, tables = said[:2], said[2:]
    assert legend == [f"{n + 1}  textures-lambda/{NAMES[0]}-seed_{n} (succeeded)" for n in range(2)]
    assert max(len(line.rstrip()) for line in tables) <= width
    words = " ".join(tables).split()
    assert {"1.23456e-05", "0.0123457", "12.3456", "1.23457e+06", "70.04", "71.50)", "30.00)"} <= set(words)
    assert sum("8192" in word for word in words) == 5, "a list goes over several lines"
    (source,) = (line for line in tables if line.startswith("/run/published/source"))
    assert "…" in source


def test_many_jobs_side_by_side_stand_in_several_tables() -> None:
    values = [1.23456e-5 * (n + 1) for n in range(9)]
    of = compared(9, metrics=[Difference(name="correlation_off_diagonal_rms", values=values)])
    said = printed(render_comparison.jobs, of, 60)
    assert max(len(line.rstrip()) for line in said if not line.endswith("(succeeded)")) <= 60
    assert [word for line in said for word in line.split() if "e-" in word or word.startswith("0.0001")] == [
        f"{value:.6g}" for value in values
    ]


def test_what_is_piped_is_not_cut() -> None:
    text = "A table of somebody whose citation is long, with its year, 2021"
    of = compared(2, spec=[Difference(name="/run/published/source", values=[text, None])])
    assert any(text in line for line in printed(render_comparison.jobs, of, 60, terminal=False))
