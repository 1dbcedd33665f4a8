"""`barlow compare`, `recipes` and what is said of an evaluation, over a real API."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_kit import KNN, PRETRAIN
from rich.console import Console
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from service.api.comparison_schemas import Comparison
from service.client import render_comparison
from service.client.api import Client
from service.command import app
from service.database.tables import Job

RECIPES = Path(__file__).parents[2] / "recipes"
LINEAR = {**KNN, "kind": "linear", "run": {"published": {"source": "Table 9 of [them]", "scores": {"top1": 73.2}}}}
DATA = {"name": "textures", "train_images": 4000, "test_images": 1000}


@pytest.fixture
def barlow(server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("BARLOW_URL", server)
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def row(client: Client, session: Session, request: pytest.FixtureRequest) -> str:
    """An experiment: a linear classifier on a pretrained backbone and an untrained one, and kNN, which is not done."""
    name = f"row-{abs(hash(request.node.name))}"
    untrained = {"backbone_from": {"random": 0}, "backbone": {"name": "tiny"}}
    jobs = {
        "pretrain": PRETRAIN,
        "linear": {**LINEAR, "epochs": 90, "backbone_from": {"job": "pretrain"}},
        "linear-untrained": {**LINEAR, "epochs": 90, **untrained},
        "knn": {**KNN, "backbone_from": {"job": "pretrain"}},
    }
    ids = {job.name: job.id for job in client.submit_experiment({"name": name, "jobs": jobs}).jobs}
    for judged, (last, best) in {"linear": (70.04, 71.5), "linear-untrained": (30.0, 30.0)}.items():
        job = session.get_one(Job, ids[judged])
        job.state = "succeeded"
        job.result = {
            "protocol": "linear-document/1",
            "departures": {"epochs": {"protocol": 100, "here": 90}},
            "headline": "top1",
            "scores": {"top5": {"last": 91.0, "best": 91.0}, "top1": {"last": last, "best": best}},
            "data": DATA,
        }
    session.commit()
    return name


def lines(answer: Result) -> list[list[str]]:
    assert answer.exit_code == 0, answer.output
    return [line.split() for line in answer.output.splitlines()]


def test_a_comparison_is_written_as_a_page(barlow: Any, row: str, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "row.html"
    said = barlow("compare", "--experiment", row, "--plot", str(file))
    assert (said.exit_code, said.output) == (0, f"{file}: {file.stat().st_size / 1e6:.1f} MB, for any browser\n")
    assert f"<title>{row}</title>" in file.read_text()
    assert "<td>70.04</td>" in file.read_text()
    ids = [str(job.id) for job in client.experiment(row).jobs[:2]]
    assert barlow("compare", *ids, "--plot", str(file)).exit_code == 0
    assert "2 jobs, as of" in file.read_text()
    nowhere = barlow("compare", *ids, "--plot", str(tmp_path / "none" / "row.html"))
    assert (nowhere.exit_code, "No such file or directory" in nowhere.stderr) == (1, True)
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    other = barlow("compare", *ids, "--plot", str(notes))
    assert (other.exit_code, "it is no page of a comparison; name another file" in other.stderr) == (1, True)
    assert notes.read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["notes.txt", "row.html"], "nothing half written"
    alone = barlow("compare", ids[0], "--plot", str(file))
    assert (alone.exit_code, "two jobs or more" in alone.stderr) == (2, True)


def test_an_experiment_is_lined_up_by_whose_backbone_it_was(barlow: Any, row: str) -> None:
    said = lines(barlow("compare", "--experiment", row))
    assert ["linear-paper/1", "on", "textures"] in said
    assert ["top1", "70.0", "(71.5)", "30.0", "73.2"] in said
    assert ["less", "published", "-3.2", "-43.2"] in said
    assert ["top5", "91.0", "91.0"] in said
    assert said.index(["top1", "70.0", "(71.5)", "30.0", "73.2"]) < said.index(["top5", "91.0", "91.0"])
    assert any(" ".join(line).endswith(": not quite linear-paper/1: epochs 90, not 100") for line in said)
    assert sum("not quite" in " ".join(line) for line in said) == 1, "once for all that left it alike"
    assert said.count(["published:", "Table", "9", "of", "[them]"]) == 1
    assert ["not", "in", "it:", "knn", "(knn,", "waiting)"] in said
    by_id = barlow("compare", "--experiment", str(uuid.UUID(int=0)))
    assert (by_id.exit_code, "there is no experiment" in by_id.stderr) == (1, True)


def test_jobs_side_by_side_have_their_scores_beside_what_was_published(barlow: Any, row: str) -> None:
    said = lines(barlow("compare", f"{row}/linear", f"{row}/linear-untrained", f"{row}/knn"))
    assert ["top1", "70.04", "(best", "71.50)", "30.00", "(best", "30.00)", "-"] in said
    assert ["top1,", "published", "73.2", "(ours", "-3.16)", "73.2", "(ours", "-43.20)", "-"] in said
    assert ["backbone", "pretrain", "untrained", "tiny,", "seed", "0", "-"] in said
    assert not any(line and line[0].startswith("/scores") for line in said)
    assert any(line and line[0] == "/backbone_from/job" for line in said)
    for wrong in ([f"{row}/linear"], [], [f"{row}/linear", f"{row}/knn", "--experiment", row]):
        refused = barlow("compare", *wrong)
        assert (refused.exit_code, "two jobs" in refused.output) == (2, True)


def test_pretrainings_of_one_spec_on_other_images_are_told_apart(barlow: Any, client: Client, session: Session) -> None:
    names = ("former", "here", "there")
    found = client.submit_experiment({"name": "moved", "jobs": dict.fromkeys(names, PRETRAIN)}).jobs
    images = {"here": ("5a" * 32, 4000), "there": ("c3" * 32, 3999)}
    for job in found:
        row = session.get_one(Job, job.id)
        row.state, row.result = "succeeded", {"steps": 3}
        if job.name in images:
            fingerprint, count = images[job.name]
            row.result |= {"data": {"name": "textures", "split": "train", "fingerprint": fingerprint, "images": count}}
    session.commit()

    said = barlow("compare", "moved/here", "moved/there").output
    assert "their specs do not differ, their data do" in said
    assert ["/data/images", "4000", "3999"] in [line.split() for line in said.splitlines()]
    assert any(line.split()[:1] == ["/data/fingerprint"] for line in said.splitlines())
    untold = barlow("compare", "moved/former", "moved/here").output.splitlines()
    assert "their specs do not differ" in untold, "a former version's result does not say which images it had"


def test_in_a_narrow_terminal_no_number_is_cut(client: Client, row: str) -> None:
    compared = client.compare_experiment(row)
    for width in (60, 80):
        out = io.StringIO()
        render_comparison.experiment(Console(file=out, width=width, soft_wrap=True), compared)
        table = [line for line in out.getvalue().splitlines() if line.startswith(" ")]
        assert all(len(line.rstrip()) <= width for line in table), table
        assert any(line.split() == ["top1", "70.0", "(71.5)", "30.0", "73.2"] for line in table), table


def test_many_backbones_stand_in_as_many_tables_as_the_terminal_needs(
    barlow: Any, client: Client, session: Session
) -> None:
    jobs = {"pretrain": PRETRAIN, "knn": {**KNN, "backbone_from": {"job": "pretrain"}}}
    grid = {"objective.lambda": [0.01, 0.02, 0.03, 0.04]}
    made = client.submit_experiment({"name": "wide", "jobs": jobs, "grid": grid, "seeds": 2}).jobs
    for number, job in enumerate(job for job in made if job.kind == "knn"):
        row = session.get_one(Job, job.id)
        scores = {"top1": {"last": 50.0 + number, "best": 50.0 + number}}
        row.state, row.result = "succeeded", {
            "protocol": "knn/1", "departures": {}, "headline": "top1", "scores": scores, "data": DATA,
        }  # fmt: skip
    session.commit()
    compared = client.compare_experiment("wide")
    for width in (40, 60, 80, 1000):
        out = io.StringIO()
        render_comparison.experiment(Console(file=out, width=width, soft_wrap=True), compared)
        text = out.getvalue()
        assert text.count("±") == 4 + 1, "each number once, and the legend"
        numbers = [line for line in text.splitlines() if line.startswith("  top1")]
        assert all(len(line.rstrip()) <= width for line in numbers), numbers
        assert len(numbers) == {40: 4, 60: 4, 80: 2, 1000: 1}[width]
    (line,) = (line for line in barlow("compare", "--experiment", "wide").output.splitlines() if "top1" in line)
    assert [word.strip() for word in line.split("  ") if word.strip()] == [
        "top1",
        *(f"{50.5 + 2 * i} ± 0.7 n=2" for i in range(4)),
    ]


def test_a_number_is_taken_from_what_was_published_of_its_own_backbone(
    barlow: Any, client: Client, session: Session
) -> None:
    jobs: dict[str, Any] = {}
    for name, published in (("narrow", 60.0), ("wide", 71.4), ("wider", None)):
        told = {"run": {"published": {"source": "A figure", "scores": {"top1": published}}}} if published else {}
        jobs |= {name: PRETRAIN, f"of-{name}": {**KNN, "backbone_from": {"job": name}, **told}}
    for job in client.submit_experiment({"name": "widths", "jobs": jobs}).jobs:
        if job.kind == "knn":
            row = session.get_one(Job, job.id)
            scores = {"top1": {"last": 70.0, "best": 70.0}}
            row.state, row.result = "succeeded", {
                "protocol": "knn/1", "departures": {}, "headline": "top1", "scores": scores, "data": DATA,
            }  # fmt: skip
    session.commit()
    said = lines(barlow("compare", "--experiment", "widths"))
    assert ["top1", "70.0", "70.0", "70.0"] in said
    assert ["published", "60", "71.4"] in said
    assert ["less", "published", "+10.0", "-1.4"] in said


def test_a_result_of_a_former_version_is_said_to_be_left_out(barlow: Any, client: Client, session: Session) -> None:
    body = {"name": "former", "jobs": {"old": {**KNN, "backbone_from": {"pixels": True}}}}
    (job,) = client.submit_experiment(body).jobs
    row = session.get_one(Job, job.id)
    row.state, row.result = "succeeded", {"protocol": "knn/1", "top1": {"last": 50.0, "best": 50.0}}
    session.commit()
    assert "not in it: old (knn, succeeded)" in barlow("compare", "--experiment", "former").output


def test_nothing_measured_yet_is_said(barlow: Any, client: Client) -> None:
    client.submit_experiment({"name": "young", "jobs": {"pretrain": PRETRAIN}})
    assert "no evaluation of it has succeeded yet" in barlow("compare", "--experiment", "young").output
    assert isinstance(client.compare_experiment("young"), Comparison)


def test_show_tells_the_protocol_every_score_and_where_it_was_left(barlow: Any, row: str) -> None:
    said = lines(barlow("show", f"{row}/linear"))
    assert ["linear:", "linear-paper/1,", "1,000", "test", "images", "of", "textures"] in said
    assert ["top1", "70.04", "71.50"] in said
    assert ["not", "the", "protocol's:", "epochs", "90", "in", "place", "of", "100"] in said


def test_recipes_are_listed_with_their_numbers_and_printed_as_they_are(barlow: Any) -> None:
    listed = barlow("recipes").output
    assert "published  top1 73.2, top5 91 % - Zbontar et al. 2021" in listed
    assert "imagenet-batch-1024 (experiment of pretrain: pretrain, linear: linear)" in listed
    printed = barlow("recipes", "segmentation-coco")
    assert printed.output == (RECIPES / "segmentation-coco.yaml").read_text("utf-8")
    assert yaml.safe_load(printed.output)["kind"] == "detection"
    missing = barlow("recipes", "no-such")
    assert (missing.exit_code, "there is no recipe 'no-such'" in missing.stderr) == (1, True)


def test_a_pause_says_of_a_job_without_checkpoints_that_it_starts_over(
    barlow: Any, client: Client, session: Session
) -> None:
    from service.database.tables import Node, Slot
    from service.ledger import attempts
    from service.ledger import jobs as ledger

    node = Node(name="host", instance=uuid.uuid4(), versions={}, data_sets={}, cores=4, memory_bytes=2**30)
    session.add(node)
    session.flush()
    for index, (name, kind) in enumerate(
        {"judged": {**KNN, "backbone_from": {"pixels": True}}, "trained": PRETRAIN}.items()
    ):
        job_id = client.submit_job({**kind, "name": name}).id
        slot = Slot(node="host", index=index, kind="cpu", device_uuid=f"host-{index}", memory_bytes=2**30)
        session.add(slot)
        session.flush()
        placed = attempts.place(session, ledger.lock_job(session, job_id), [slot], lease_seconds=60)
        assert attempts.accept(session, placed.id, node="host", instance=node.instance, lease_seconds=60) is not None
        session.commit()
    assert "it will start over" in barlow("pause", "judged").output
    assert "it will start over" not in barlow("pause", "trained").output
