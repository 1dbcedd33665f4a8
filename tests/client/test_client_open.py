"""`barlow open` and `barlow show`: links that let a browser into MLflow, and how a browser is handed one."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_kit import ADMIN, PRETRAIN, guarded, run_server
from running_stack import wait_until
from sqlalchemy import update
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from service.client.api import Client
from service.command import app
from service.database.tables import Experiment, Job
from service.settings import Settings

MLFLOW = "https://mlflow.example.org"
LINK = re.escape(MLFLOW) + r"/enter\?code=[A-Za-z0-9_-]{43}"


@pytest.fixture(scope="module")
def address(served: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = guarded(served).model_copy(update={"mlflow_public_url": MLFLOW})
    with run_server(settings, tmp_path_factory.mktemp("guarded")) as found:
        yield found


@pytest.fixture
def barlow(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("BARLOW_URL", address)
    monkeypatch.setenv("BARLOW_TOKEN", ADMIN)
    for display in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(display, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


def test_open_prints_a_link_that_is_another_one_each_time(barlow: Any) -> None:
    links = {barlow("open").stdout.strip() for _ in range(2)}
    assert len(links) == 2
    assert all(re.fullmatch(LINK, link) for link in links)


def test_a_job_without_a_run_says_so_and_one_with_a_run_has_a_link(barlow: Any, address: str, session: Session) -> None:
    with Client(address, ADMIN) as client:
        job = client.submit_job({**PRETRAIN, "name": "shown"}, experiment="opened")
    early = barlow("open", "shown")
    assert early.exit_code == 1
    assert "has no run in MLflow yet" in early.stderr
    assert "MLflow:" not in barlow("show", "shown").output
    session.execute(update(Experiment).where(Experiment.name == "opened").values(mlflow_experiment_id="7"))
    session.execute(update(Job).where(Job.id == job.id).values(mlflow_run_id="abc"))
    session.commit()
    assert re.fullmatch(LINK, barlow("open", "shown").stdout.strip())
    # On a line of its own, whole, however narrow the terminal is.
    assert re.search(rf"^MLflow: {LINK}$", barlow("show", "shown").output, re.MULTILINE)


def test_a_browser_gets_a_page_that_its_owner_reads_and_no_code_on_a_command_line(
    barlow: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config_home: Path
) -> None:
    told = tmp_path / "told"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$*" >{told}.part && mv {told}.part {told}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    assert not told.exists()
    barlow("open")  # no display: nobody would see it
    monkeypatch.setenv("DISPLAY", ":0")
    barlow("open", "--no-browser")
    link = barlow("open").stdout.strip()
    wait_until(told.exists, 30)
    page = config_home / "barlow" / "open.html"
    assert told.read_text() == page.as_uri()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert link in page.read_text()
