"""The demo's recipe is right, and `barlow demo` fails when it should. That it succeeds is what `make demo` shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import foreign_shell
import pytest
import yaml
from rich.console import Console
from running_stack import Up

from barlow_lab.specs import PretrainSpec, load_spec_file, parse_spec
from service.api.schemas import JobDetail
from service.local.demo import NEEDED_GAIN, judge

RECIPE = Path(__file__).parents[2] / "recipes" / "demo.yaml"


def demo(recipe: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """`barlow demo` in the shell of somebody with other projects."""
    command = [Path(sys.executable).with_name("barlow"), "demo", recipe, "--data", data]
    shell = {**os.environ, **foreign_shell.VARIABLES, "COLUMNS": "120"}
    return subprocess.run(command, env=shell, capture_output=True, text=True, check=False, timeout=240)


def test_the_recipe_gives_fifty_points_of_everything() -> None:
    jobs = {name: parse_spec(spec) for name, spec in load_spec_file(RECIPE)["jobs"].items()}
    assert set(jobs) == {
        "pretrain", "knn", "linear", "knn-untrained", "linear-untrained", "knn-pixels", "linear-pixels",
    }  # fmt: skip
    spec = jobs["pretrain"]
    assert isinstance(spec, PretrainSpec)
    assert spec.data.limit is not None
    assert spec.total_steps(spec.data.limit) / spec.run.record.metrics_every_steps >= 50
    assert spec.epochs / spec.run.record.correlation_every_epochs >= 50


def test_a_failed_job_fails_the_demo_and_shows_why(tmp_path: Path) -> None:
    bad = {
        "kind": "pretrain",
        "data": {"name": "digits", "limit": 64},
        "views": {"preset": "small_images", "size": 32},
        "backbone": {"name": "tiny"},
        "projector": {"widths": [16, 16]},
        "optimizer": {"name": "sgd", "learning_rate": 1e30},
        "batch_size": 16,
        "epochs": 5,
    }
    after = {"kind": "knn", "data": {"name": "digits"}, "backbone_from": {"job": "pretrain"}}
    jobs = {"pretrain": bad, "knn": {**after, "images": {"size": 32, "resize": 32}}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "small", "jobs": jobs}))
    done = demo(recipe, tmp_path / "demo")
    said = " ".join(done.stdout.split())
    assert done.returncode == 1, said
    assert "pretrain failed (diverged): " in said
    assert "knn: " in said
    assert "MLflow http://127.0.0.1:" in said
    assert Up(tmp_path / "demo").processes() == []

    again = demo(tmp_path / "no-such.yaml", tmp_path / "demo")
    assert again.returncode == 1
    assert "no-such.yaml" in again.stdout


def test_no_gain_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def job(top1: float) -> JobDetail:
        return JobDetail.model_construct(state="succeeded", result={"scores": {"top1": {"last": top1}}})

    console = Console(width=200)
    assert judge(console, {"knn": job(17.0 + NEEDED_GAIN), "knn-untrained": job(17.0)})
    assert not judge(console, {"knn": job(16.9 + NEEDED_GAIN), "knn-untrained": job(17.0)})
    assert "29.9 points above" in capsys.readouterr().out


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    done = demo(RECIPE, tmp_path)
    assert done.returncode == 1
    assert "choose another --data" in " ".join(done.stdout.split())
    assert (tmp_path / "thesis.txt").exists()
