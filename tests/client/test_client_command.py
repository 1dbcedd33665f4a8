"""The `barlow` command, over a real API."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_kit import KNN, PRETRAIN
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from barlow_lab.specs import digest, parse_spec
from service.client.api import Client
from service.command import app
from service.database.tables import Job, Node
from service.ledger import events
from service.ledger import requests as ledger
from service.settings import Settings

RECIPE = "# a comment\n" + yaml.safe_dump({**PRETRAIN, "name": "from-file"})


@pytest.fixture
def barlow(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("BARLOW_URL", server)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


def write(name: str, content: Any) -> str:
    Path(name).write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return name


def test_help_teaches_by_example(barlow: Any) -> None:
    said = barlow("--help").output
    assert "barlow submit recipes/digits.yaml --watch" in said
    commands = (
        "up demo submit jobs show watch logs cancel pause resume retry rebuild-mlflow spec compare nodes release "
        "login logout token"
    )
    for command in commands.split():
        assert f"\n  {command}" in said
        assert barlow(command, "--help").exit_code == 0


def test_spec_resolves_offline(barlow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BARLOW_URL")
    done = barlow("spec", write("recipe.yaml", RECIPE))
    assert done.exit_code == 0, done.output
    assert f"# digest: {digest(parse_spec(PRETRAIN))}" in done.output
    resolved = yaml.safe_load(done.output)
    assert resolved["objective"]["lambda"] == 0.0051
    assert parse_spec(resolved) == parse_spec({**PRETRAIN, "name": "from-file"})
    whole = barlow("spec", write("all.yaml", {"name": "x", "jobs": {"a": PRETRAIN, "b": PRETRAIN}}))
    assert len([doc for doc in yaml.safe_load_all(whole.output) if doc]) == 2


def test_spec_prints_what_an_experiment_becomes(barlow: Any) -> None:
    jobs = {"pretrain": PRETRAIN, "knn": {**KNN, "backbone_from": {"job": "pretrain"}}}
    file = write("grid.yaml", {"name": "x", "jobs": jobs, "grid": {"objective.lambda": [0.1, 0.2]}})
    done = barlow("spec", file, "--set", "seeds=2", "--set", "jobs.knn.k=5", "--set", "epochs=7")
    assert done.output.startswith("# 8 jobs, of 2 that vary\n")
    found = {spec["name"]: spec for spec in yaml.safe_load_all(done.output) if spec}
    assert found["knn-lambda_0.2-seed_1"]["backbone_from"]["job"] == "pretrain-lambda_0.2-seed_1"
    assert (found["pretrain-lambda_0.2-seed_1"]["epochs"], found["knn-lambda_0.1-seed_0"]["k"]) == (7, 5)


def test_a_value_is_set_on_the_command_line(barlow: Any, client: Client) -> None:
    recipe = write("recipe.yaml", RECIPE)
    done = barlow(
        "submit", recipe, "--experiment", "set", "--set", "optimizer.learning_rate=3e-1", "--set", "name=other"
    )
    assert done.exit_code == 0, done.output
    (job,) = client.experiment("set").jobs
    assert (job.name, client.job(job.id).spec["optimizer"]["learning_rate"]) == ("other", 0.3)
    wrong = barlow("submit", recipe, "--set", "optimizer.learnin_rate=3")
    assert "/optimizer/learnin_rate: unknown field; did you mean 'learning_rate'?" in wrong.stderr
    whole = write("all.yaml", {"name": "set-all", "jobs": {"a.b": PRETRAIN, "a": PRETRAIN}})
    done = barlow("submit", whole, "--set", "jobs.a.b.epochs=9", "--set", "grid.batch_size=[32, 64]")
    assert done.exit_code == 0, done.output
    specs = [client.job(job.id).spec for job in client.experiment("set-all").jobs]
    assert sorted((spec["name"], spec["epochs"] == 9) for spec in specs) == [
        ("a-batch_size_32", False), ("a-batch_size_64", False),
        ("a.b-batch_size_32", True), ("a.b-batch_size_64", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("epochs", "PATH=VALUE is expected"),
        ("optimizer..x=1", "with dots"),
        ("epochs=[", "cannot be read"),
        ("batch_size.x=1", "batch_size is no object"),
        ("jobs.c.epochs=1", "did you mean"),
        ("jobs.a=1", "jobs.a.seed"),
    ],
)
def test_a_value_that_cannot_be_set_is_told_with_the_remedy(barlow: Any, change: str, said: str) -> None:
    done = barlow("spec", write("all.yaml", {"name": "x", "jobs": {"a": PRETRAIN, "cc": PRETRAIN}}), "--set", change)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_job_of_a_file_without_jobs_cannot_be_set(barlow: Any) -> None:
    done = barlow("spec", write("one.yaml", PRETRAIN), "--set", "jobs.pretrain.epochs=3")
    assert done.exit_code == 2
    assert "one job, no experiment with jobs; name the field alone, such as epochs" in " ".join(
        done.output.replace("│", " ").split()
    )


def test_spec_names_every_fault(barlow: Any) -> None:
    done = barlow("spec", write("bad.yaml", {**PRETRAIN, "epoch": 3, "batch_size": 0}))
    assert done.exit_code == 1
    assert "/epoch: unknown field" in done.stderr
    assert "/batch_size" in done.stderr
    several = barlow("spec", write("bad.yaml", {"name": "x", "jobs": {"a": {**PRETRAIN, "epochs": 0}, "b": {}}}))
    assert "/jobs/a/epochs" in several.stderr
    assert "/jobs/b/kind" in several.stderr
    assert barlow("spec", write("torn.yaml", "a: [1,")).exit_code == 1
    assert "nowhere.yaml" in barlow("spec", "nowhere.yaml").stderr


def test_submit_list_show_cancel_compare(barlow: Any, client: Client) -> None:
    done = barlow("submit", write("recipe.yaml", RECIPE), "--experiment", "cli")
    assert done.exit_code == 0, done.output + done.stderr
    job_id = done.output.split()[0]
    assert "cli/from-file" in done.output
    body = {"name": "several", "jobs": {"p": PRETRAIN, "k": {**KNN, "backbone_from": {"job": "p"}}}}
    done = barlow("submit", write("all.yaml", body), "--experiment", "renamed")
    assert done.exit_code == 0, done.stderr
    assert "renamed/k" in done.output
    assert "waiting" in done.output
    again = barlow("submit", "all.yaml", "--experiment", "renamed")
    assert again.exit_code == 1
    assert "take another name" in again.stderr
    listed = barlow("jobs", "--experiment", "renamed").output
    assert [line.split()[1] for line in listed.splitlines()[1:]] == ["renamed/k", "renamed/p"]
    assert len(listed.splitlines()[1].split()[0]) == 36
    shown = barlow("show", "renamed/k").output
    assert "waits for job p" in shown
    assert job_id in barlow("show", "from-file").output
    assert barlow("cancel", job_id[-8:]).output == "from-file  cancelled by anonymous\n"
    assert client.job(job_id).state == "cancelled"
    alone = barlow("compare", "from-file")
    assert alone.exit_code == 2
    assert "two jobs" in alone.output
    compared = barlow("compare", "from-file", "renamed/k").output
    assert "/kind" in compared
    assert "pretrain" in compared
    assert barlow("jobs", "--state", "asleep").exit_code == 2
    assert "digits" in barlow("datasets").output
    assert "no node has registered" in barlow("nodes").output


def test_an_error_is_shown_with_the_last_lines_of_the_log(barlow: Any, client: Client, session: Session) -> None:
    made = client.submit_job({**PRETRAIN, "name": "breaks"})
    row = session.get(Job, made.id)
    assert row is not None
    row.state = "failed"
    row.error = {"class": "diverged", "message": "not finite", "log_tail": ["[0] [bold]step 7"], "traceback": None}
    session.commit()
    shown = barlow("show", "breaks").output
    assert "diverged" in shown
    assert "[0] [bold]step 7" in shown
    watched = barlow("watch", "breaks")
    assert watched.exit_code == 1
    assert "not finite" in watched.output


def test_watch_ends_with_the_jobs(barlow: Any, client: Client, session: Session, served: Settings) -> None:
    made = client.submit_job({**PRETRAIN, "name": "watched"})
    row = session.get(Job, made.id)
    assert row is not None
    row.state = "succeeded"
    row.result = {"loss": 1.5, "health": ["60 of 128 directions carry 99 % of the variance"]}
    session.commit()
    done = barlow("watch", "watched")
    assert done.exit_code == 0
    assert '"loss": 1.5' in done.output
    assert "watched: 60 of 128 directions carry 99 % of the variance" in done.output
    assert '"health"' not in done.output, "words are no JSON"


def test_submit_with_watch_ends_when_another_cancels(barlow: Any, client: Client, session: Session) -> None:
    def cancel() -> None:
        for _ in range(100):
            if found := client.jobs(match="looked-at").items:
                ledger.request_cancel(session, found[0].id, actor="other")
                session.commit()
                return
            time.sleep(0.1)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    done = barlow("submit", write("recipe.yaml", {**PRETRAIN, "name": "looked-at"}), "--watch")
    canceller.join()
    assert done.exit_code == 1
    assert "cancelled by other" in done.output


def test_logs_are_printed_as_they_are(barlow: Any, client: Client, served: Settings) -> None:
    made = client.submit_job({**PRETRAIN, "name": "logged"})
    folder = served.runs_dir / str(made.id) / "attempts" / "0001"
    folder.mkdir(parents=True)
    (folder / "trainer.log").write_text("[0] λ [red]plain[/red]\n")
    assert barlow("logs", "logged").output == "[0] λ [red]plain[/red]\n"
    assert barlow("logs", "logged", "--attempt", "2").output == ""
    client.cancel(made.id)
    assert barlow("logs", "logged", "-f").output == "[0] λ [red]plain[/red]\n"
    (folder / "trainer.log").write_text("[0] \x1b[2J\u202ea\tb\n")
    assert barlow("logs", "logged").output == "[0] \\x1b[2J\\u202ea\tb\n"


def test_what_would_drive_a_terminal_is_printed_as_its_escape(barlow: Any, client: Client, session: Session) -> None:
    """Of logs and faults of before, and of whoever else writes there."""
    evil = "\x1b]0;title\x9c \u202efdp.exe\u2069 \x85[0] forged \x9b2J [red] :smile:"
    said = r"\x1b]0;title\x9c \u202efdp.exe\u2069 \x85[0] forged \x9b2J [red] :smile:"
    made = client.submit_job({**PRETRAIN, "name": "evil"})
    job = session.get_one(Job, made.id)
    job.state, job.error = "failed", {"class": "bad_data", "message": evil, "log_tail": [evil], "traceback": None}
    job.finished_at = job.created_at
    session.commit()
    shown = barlow("show", "evil")
    assert shown.output.count(said) == 2, shown.output
    assert evil not in shown.output


def test_show_tells_what_the_job_has_warned_of_the_newest_first(barlow: Any, client: Client, session: Session) -> None:
    made = client.submit_job({**PRETRAIN, "name": "warns"})
    job = session.get_one(Job, made.id)
    nothing = "step 1: 16 of the batch's 16 images are of one colour: there is nothing to learn from them"
    for message in (nothing, *(f"{n}.png cannot be read" for n in range(10)), "the disk is full", nothing):
        events.append(session, job, "warning", actor="attempt 1", payload={"message": message})
    session.commit()
    detail = client.job(made.id)
    assert [(one.message, one.times) for one in detail.warnings[:3]] == [
        (nothing, 2), ("the disk is full", 1), ("9.png cannot be read", 1),
    ]  # fmt: skip
    assert (len(detail.warnings), detail.more_warnings) == (10, 2)
    shown = barlow("show", "warns").output
    assert f"warning: {nothing} (2 times)" in shown
    assert f"and 2 other warnings: barlow logs {made.id}" in shown.replace("\n", " ")
    quiet = client.submit_job({**PRETRAIN, "name": "quiet"})
    assert (client.job(quiet.id).warnings, client.job(quiet.id).more_warnings) == ([], 0)
    assert "warning" not in barlow("show", "quiet").output


def test_the_address_comes_from_the_stack_of_this_directory(
    barlow: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BARLOW_URL")
    lost = barlow("jobs")
    assert lost.exit_code == 1
    assert "barlow up" in lost.stderr
    for directory in (".barlow", "elsewhere"):
        Path(directory).mkdir()
        Path(directory, "endpoints.json").write_text(json.dumps({"api": server}))
    assert barlow("jobs").exit_code == 0
    assert barlow("jobs", "--data", "elsewhere").exit_code == 0
    Path(".barlow", "endpoints.json").write_text("{")
    assert "barlow up" in barlow("jobs").stderr
    assert barlow("jobs", "--url", server).exit_code == 0


def test_the_installed_command_runs(server: str, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("barlow")
    done = subprocess.run(
        [command, "show", str(uuid.uuid4()), "--url", server], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "there is no job" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_table_of_data_sets_says_what_each_has_and_what_is_wrong_with_it(barlow: Any, session: Session) -> None:
    counted = {"splits": {"train": 5000}, "classes": 20, "annotations": ["boxes", "multi_label"]}
    sets = {
        "voc": counted,
        "fresh": {"splits": {}, "classes": None, "checked": False},
        "nas": {"splits": {"train": 4}, "classes": None, "annotations": [], "notes": [f"data set 'nas': {'x' * 200}"]},
        "photos": {"splits": {}, "classes": None, "fault": "data set 'photos' has no folder /x on this host"},
    }
    node = {"versions": {}, "cores": 2, "memory_bytes": 2**30, "instance": uuid.uuid4()}
    session.add(Node(name="host", data_sets=sets, **node))
    session.add(Node(name="other", data_sets={"voc": {**counted, "fault": "truncated"}}, **node))
    session.commit()
    said = barlow("datasets").output
    lines = {line.split("  ")[0]: line for line in said.splitlines()}
    assert "train 5,000" in lines["voc"]
    assert "boxes, multi_label" in lines["voc"]
    assert "cannot be used on other" in lines["voc"]
    assert "voc on other: truncated" in said.splitlines()
    assert "being counted" in lines["fresh"]
    assert "photos on host: data set 'photos' has no folder /x on this host" in said.splitlines()
    assert "none" in lines["nas"]
    assert "ready, see below" in lines["nas"]
    assert f"host: data set 'nas': {'x' * 200}" in said.splitlines()
    assert "see below" not in lines["digits"]
    assert "ready" in lines["digits"]
