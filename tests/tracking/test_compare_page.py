"""What a person sees of jobs compared on a page, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM
from compared import STEPS, compared
from lab import Lab
from playwright.sync_api import Page, expect
from sqlalchemy import select
from varied import VariedExperiment

from service.comparison.plots.page import compare_page
from service.database.tables import Job
from service.settings import Settings

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"),
    pytest.mark.timeout(300),
]

SHOWN = "id => document.getElementById(id).data.map(trace => JSON.stringify(trace.z ?? trace.y))"
"""What a figure shows now, by plotly.js."""


@pytest.fixture(scope="module")
def experiment(served: Settings) -> Iterator[VariedExperiment]:
    lab = Lab(served)
    yield compared(lab, served)
    lab.engine.dispose()


@pytest.fixture
def heard(page: Page) -> dict[str, list[str]]:
    """What the page asks for, and what its console says."""
    found: dict[str, list[str]] = {"asked": [], "said": []}
    page.on("request", lambda request: found["asked"].append(request.url))
    page.on("console", lambda message: found["said"].append(message.text))
    page.on("pageerror", lambda error: found["said"].append(str(error)))
    return found


def opened(page: Page, address: str) -> None:
    page.goto(address)
    # The page's policy forbids to evaluate the text of a condition there.
    expect(page.locator("body[data-drawn=yes]")).to_be_attached()


def test_the_page_shows_lines_and_one_slider_moves_spectra_and_matrices(
    page: Page, server: str, experiment: VariedExperiment, heard: dict[str, list[str]], tmp_path: Path
) -> None:
    address = f"{server}/api/v1/compare.html?experiment={experiment.row().name}"
    opened(page, address)
    lines = page.locator("#lines")
    for name in (
        "pretrain-lambda_0.01, 2 seeds (n=2)",
        "pretrain-lambda_0.05, 2 seeds (n=2)",
        "knn-lambda_0.01, 2 seeds",
    ):
        expect(lines).to_contain_text(name)
    assert lines.locator("path.js-fill").count() >= 2, "bands"
    drawn = {trace.get("name"): trace for trace in page.evaluate("document.getElementById('lines').data")}
    assert drawn["pretrain-lambda_0.01, 2 seeds (n=2)"]["y"][-1] == pytest.approx((100 / 40 + 110 / 40) / 2)
    page.get_by_label("Metric").select_option("on_diagonal")
    expect(lines.locator(".ytitle")).to_have_text("on_diagonal")

    page.get_by_label("Metric").select_option("off_diagonal")
    page.get_by_label("Log value").first.check()
    expect(page.locator("section", has=lines)).to_contain_text("a band is left out where it reaches down to zero")
    traces = page.evaluate("document.getElementById('lines').data")
    assert [trace["x"][-1] for trace in traces if "fill" in trace] == [20, 20]

    at_the_end = [page.evaluate(SHOWN, figure) for figure in ("spectra", "heatmaps")]
    assert list(map(len, at_the_end)) == [4, 4], "a spectrum and a matrix of each pretraining"
    slider = page.get_by_label("Step", exact=True)
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#spectra .gtitle")).to_have_text(f"Spectra at step {STEPS[0]}")
    expect(page.locator("#heatmaps .gtitle")).to_have_text(f"C at step {STEPS[0]}")
    at_first = [page.evaluate(SHOWN, figure) for figure in ("spectra", "heatmaps")]
    for before, after in zip(at_the_end, at_first, strict=True):
        assert all(one != other for one, other in zip(before, after, strict=True))

    expect(page.locator("#whiskers")).to_contain_text("raw pixels")
    for number in range(page.get_by_role("button", name="SVG").count()):
        with page.expect_download() as download:
            page.get_by_role("button", name="SVG").nth(number).click()
        file = tmp_path / f"{number}.svg"
        download.value.save_as(file)
        assert file.read_text().startswith("<svg")
    asked = [url for url in heard["asked"] if not url.startswith(("data:", "blob:"))]
    assert (asked, heard["said"]) == ([address], [])
    page.set_viewport_size({"width": 390, "height": 844})
    expect(lines.locator("svg.main-svg").first).to_have_attribute("width", re.compile("^3[0-9]{2}$"))
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing lies beside a phone's page"


def test_names_are_text_also_where_they_are_markup(
    page: Page, served: Settings, experiment: VariedExperiment, heard: dict[str, list[str]], tmp_path: Path
) -> None:
    evil = "</script><img src=x onerror=\"document.title='taken'\"><b>"
    with experiment.lab.sessions() as session:
        jobs = session.scalars(select(Job).order_by(Job.id)).all()
        for job in jobs:
            job.name = f"{evil}{job.name}"
        made = compare_page(session, served.runs_dir, jobs, whole=True)
        session.rollback()
    file = tmp_path / "page.html"
    file.write_text(made.html)
    opened(page, file.as_uri())
    assert page.title() == experiment.row().name
    expect(page.locator("#lines")).to_contain_text("</script><img")
    expect(page.locator("table").last).to_contain_text("</script><img")
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("section b").count() == 0
    assert (heard["asked"], heard["said"]) == ([file.as_uri()], [])
    assert json.loads(page.locator("#data").text_content() or "")["groups"][0]["name"].startswith("</script>")


def test_a_page_without_anything_to_draw_says_so(page: Page, server: str, served: Settings, heard: Any) -> None:
    lab = Lab(served)
    first, second = lab.submit("first"), lab.submit("second")
    lab.engine.dispose()
    opened(page, f"{server}/api/v1/compare.html?job={first}&job={second}")
    expect(page.locator("main")).to_contain_text("There is nothing to draw yet")
    assert heard["said"] == []
