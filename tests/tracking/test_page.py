"""What a person sees of runs in MLflow, in a real browser."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import torch
from api_kit import bearer
from chromium import CHROMIUM, PATIENCE
from journals import RecordedJob
from lab import Lab
from playwright.sync_api import Locator, Page, expect
from recorded import export, record
from tracking_kit import Tracking
from varied import VariedExperiment

from barlow_lab.specs import load_spec_file
from barlow_lab.specs.common import RecordSpec
from service.mlflow_layout import VIEW, metric_name
from service.settings import Settings
from trainer.diagnostics.correlation_record import write_correlation_record
from worker.recorder.mlflow_run import make_client

RECIPES = Path(__file__).parents[2] / "recipes"
TILE = "experiment-view-compare-runs-card"
MATRIX = 0.44
"""So much of a heatmap's picture, from its top, is the matrix."""
BEHIND = ("correlation_diagonal_mean", "noise_floor")
METRICS = ("loss", "on_diagonal", *BEHIND)
NODE = uuid.UUID(int=1)
"""The worker of both fixtures: another one would be refused the name within a lease."""


def _font() -> str:
    """What is shown for the font that MLflow's pages ask for. In a wider one a tile has a line less for its heatmap."""
    asked = ["fc-match", "--format", "%{family}", "Arial"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout if shutil.which("fc-match") else ""


pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None or not any(name in _font() for name in ("Arial", "Liberation Sans", "Helvetica")),
        reason="no chromium, or no font as wide as Arial, is installed (apt-get install chromium fonts-liberation)",
    ),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def jobs(tracking: Tracking, served: Settings) -> dict[str, RecordedJob]:
    """The demo's pretraining, with real heatmaps of a network that learns, one of another rate, and one of more and
    longer params than fit above a picture; all in MLflow."""
    lab = Lab(served)
    lab.node(slots=4, instance=NODE)
    client = make_client(tracking.mlflow.url, tracking.mlflow.token)
    spec = load_spec_file(RECIPES / "demo.yaml")["jobs"]["pretrain"] | {"data": "digits"}
    crowded = load_spec_file(RECIPES / "textures-information-bottleneck.yaml")["jobs"]["pretrain"]
    crowded |= {"data": "digits", "projector": {"widths": [1024] * 8}}
    faster = spec | {"optimizer": {**spec["optimizer"], "learning_rate": 0.01}}
    specs = {"demo": spec, "faster": faster, "crowded": crowded}
    made = {name: RecordedJob(lab, served, name, spec=one) for name, one in specs.items()}
    for job in made.values():
        job.views()
        images = {"train": {"fingerprint": "ab" * 32, "images": 1437}}
        job.journal.append("data", name="digits", format="built in", splits=images)
        job.started()
        job.steps(1, 20)
        job.journal.metrics(20, 2, dict.fromkeys(BEHIND, 0.5))
        for step in (0, 10, 20):
            heatmap(job, step)
        job.checkpoint(20)
        job.succeed()
        record(job)
        export(job, client)
    lab.engine.dispose()
    return made


def heatmap(job: RecordedJob, step: int) -> None:
    """A record of views whose features are the more alike the later the step."""
    drawn = torch.Generator().manual_seed(step)
    both, a, b = (torch.randn(128, 64, generator=drawn) for _ in range(3))
    views = (step * both + 5 * a, step * both + 5 * b)
    found, _ = write_correlation_record(
        job.folder / "correlation",
        *views,
        step=step,
        off_diagonal_weight=0.01,
        loss=64 / (1 + step),
        tick=lambda: None,
        asked=RecordSpec.model_validate({}),
    )
    job.journal.append("correlation", step=step, epoch=step // 10, **found)


def come_in(page: Page, tracking: Tracking, job: RecordedJob) -> None:
    """By the link of `barlow open` and the button of its page, to the job's run."""
    asked = {"params": {"job": str(job.id)}, "headers": bearer(tracking.tokens["reader"])}
    page.context.clear_cookies()
    made = httpx.post(f"{tracking.api}/api/v1/entries", **asked)
    page.goto(made.raise_for_status().json()["url"])
    page.get_by_role("button").click()
    expect(page.get_by_role("heading", name=job.row().name)).to_be_visible()


def seen(picture: Locator) -> float:
    """The share of a picture, from its top down, that one sees without scrolling; 0 if its top is hidden."""
    share: float = picture.evaluate(
        """picture => {
            const at = picture.getBoundingClientRect()
            let top = 0, bottom = innerHeight
            for (let around = picture.parentElement; around; around = around.parentElement)
                if (getComputedStyle(around).overflowY !== 'visible') {
                    const box = around.getBoundingClientRect()
                    top = Math.max(top, box.top)
                    bottom = Math.min(bottom, box.bottom)
                }
            return at.top < top - 1 ? 0 : Math.max(0, Math.min(bottom, at.bottom) - at.top) / at.height
        }"""
    )
    return share


@pytest.mark.parametrize("name", ["demo", "crowded"])
def test_the_heatmap_is_seen_in_its_tile_and_the_slider_changes_it(
    page: Page, tracking: Tracking, jobs: dict[str, RecordedJob], name: str
) -> None:
    come_in(page, tracking, jobs[name])
    page.get_by_role("tab", name="Model metrics").click()
    tile = page.get_by_test_id(TILE).first
    expect(tile).to_contain_text("pictures/correlation")
    expect(page.get_by_test_id(TILE).nth(1)).to_contain_text("loss")
    picture = tile.locator("img")
    for width, height in ((1440, 900), (1280, 720), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        expect(picture).to_be_visible()
        until(lambda: seen(picture) >= MATRIX, f"the matrix is seen at a width of {width}")
    first = picture.get_attribute("src")
    assert first
    assert "correlation%2Bstep%2B0%2B" in first, "the slider begins where nothing is learned"
    slider = tile.get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(picture).not_to_have_attribute("src", first)
    expect(slider).to_have_attribute("aria-valuenow", "10")
    until(lambda: seen(picture) >= MATRIX, "the next matrix is seen")


def test_the_table_shows_the_metrics_first_and_a_comparison_what_differs(
    page: Page, tracking: Tracking, jobs: dict[str, RecordedJob]
) -> None:
    come_in(page, tracking, jobs["demo"])
    pages, _, place = page.url.partition("#")
    experiment = place.split("/")[2]
    page.goto(f"{pages}#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}")
    expect(page.locator(".ag-header-cell[col-id='metrics.`loss`']")).to_be_visible()
    columns = page.locator(".ag-header-cell[col-id]").evaluate_all("all => all.map(one => one.getAttribute('col-id'))")
    shown = [column for column in columns if column.startswith(("metrics.", "attributes."))]
    assert shown[:2] == ["attributes.`Run Name`", "metrics.`loss`"]
    chosen = ",".join(f'"{job.row().mlflow_run_id}"' for job in (jobs["demo"], jobs["faster"]))
    page.goto(f'{pages}#/compare-runs?runs=[{chosen}]&experiments=["{experiment}"]')
    axes = page.locator("[class*=select-selection-item-content]")
    expect(axes).to_have_count(2)
    expect(axes.first).to_have_text("learning_rate")
    assert axes.last.inner_text() in map(metric_name, METRICS), "a metric beside what differs"


@pytest.fixture(scope="module")
def varied(tracking: Tracking, served: Settings) -> VariedExperiment:
    """Two values of one field, each judged, and raw pixels, in MLflow."""
    lab = Lab(served)
    lab.instances["gpu-1"] = NODE
    made = VariedExperiment(lab, served, grid={"objective.lambda": [0.01, 0.05]})
    made.end(top1=80.0)
    made.export_all(make_client(tracking.mlflow.url, tracking.mlflow.token))
    lab.engine.dispose()
    return made


def test_what_varies_is_a_tree_of_runs_with_a_table_of_what_came_of_it(
    page: Page, tracking: Tracking, varied: VariedExperiment
) -> None:
    pretrained = varied.jobs["pretrain-lambda_0.01"]
    come_in(page, tracking, pretrained)
    pages, _, place = page.url.partition("#")
    experiment, run = place.split("/")[2], varied.row().mlflow_run_id
    page.goto(f"{pages}#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}")
    names = page.locator(".ag-cell[col-id='attributes.`Run Name`']")
    opened = page.locator("[data-component-id*=runnamecellrenderer]")
    expect(names).to_have_count(1)
    expect(names).to_contain_text(varied.row().name)
    expect(page.locator(".ag-header-cell[col-id='metrics.`loss`']")).to_be_visible()
    opened.click()
    expect(names).to_have_count(1 + 3)
    opened.nth(1).click()
    expect(names).to_have_count(1 + 3 + 1)
    expect(names.filter(has_text="knn-")).to_have_count(1)
    page.goto(f"{pages}#/experiments/{experiment}/runs/{run}/artifacts/summary.json")
    table = page.get_by_role("table")
    for word in ("lambda", "loss, mean", "pretrain-lambda_0.05", "0.01", "raw pixels"):
        expect(table).to_contain_text(word)
    page.get_by_text("compare.html", exact=True).click()
    shown = page.frame_locator("iframe")
    expect(shown.locator("body[data-drawn=yes]")).to_be_attached()
    expect(shown.locator("#whiskers")).to_contain_text("pretrain-lambda_0.05")


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
