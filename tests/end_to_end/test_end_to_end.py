"""The whole service over HTTP: what a user sees of jobs that go well, are cancelled, crash, or were never right."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from running_stack import Up, wait_until

from barlow_lab.journal import read_events
from barlow_lab.run_folder import JOURNAL
from service.api.schemas import JobDetail
from service.client.api import Client
from service.client.connection import ApiError
from service.local.agreement import compare

WALL_CLOCK = {"images_per_second", "data_seconds", "step_seconds"}
IMAGES = {"size": 32, "resize": 32}


@pytest.fixture(scope="module")
def client(stack: Up) -> Iterator[Client]:
    with Client(stack.endpoints["api"], stack.token) as client:
        yield client


def pretrain(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "pretrain",
        "data": {"name": "digits", "limit": 256},
        "views": {"preset": "small_images", "size": 32},
        "backbone": {"name": "tiny"},
        "projector": {"widths": [16, 16]},
        "optimizer": {"name": "adamw", "learning_rate": 0.003, "reference_batch_size": None},
        "epochs": 4,
        "batch_size": 32,
        "run": {"record": {"metrics_every_steps": 1, "correlation_every_epochs": 4}},
        **changes,
    }


def until(client: Client, job_id: UUID, true: Callable[[JobDetail], bool], seconds: float = 120) -> JobDetail:
    """The job once the condition holds."""
    seen: list[JobDetail] = []

    def holds() -> bool:
        seen.append(client.job(job_id))
        return true(seen[-1])

    try:
        wait_until(holds, seconds)
    except AssertionError:
        raise AssertionError(f"waited in vain: {seen[-1].model_dump_json(indent=1)}") from None
    return seen[-1]


def ended(client: Client, job_id: UUID) -> JobDetail:
    """The job once it has ended and everything of it is recorded."""
    return until(
        client,
        job_id,
        lambda job: job.state.terminal and job.recording.mlflow == "complete" == job.recording.postgres,
    )


def journal(stack: Up, job_id: UUID, attempt: int) -> Path:
    return stack.directory / "runs" / str(job_id) / "attempts" / f"{attempt:04d}" / JOURNAL


def kill_in_mid_run(stack: Up, job_id: UUID, attempt: int) -> int:
    """SIGKILL every rank once the attempt has written a checkpoint of its own; returns how many there were."""
    wait_until(lambda: any(e.kind == "checkpoint" for e in read_events(journal(stack, job_id, attempt))), 90)
    found = stack.ranks(job_id)
    for process in found:
        process.send_signal(signal.SIGKILL)
    return len(found)


def science(client: Client, job_id: UUID) -> dict[tuple[str, int], float]:
    """Every metric point but those of the clock; fails if one stands twice."""
    points = [p for p in client.metrics(job_id) if p.key not in WALL_CLOCK]
    out = {(p.key, p.step): p.value for p in points}
    assert len(out) == len(points)
    return out


def test_an_experiment_from_post_to_mlflow(stack: Up, client: Client) -> None:
    jobs = {
        # One step an epoch: at least 50 points of every metric, of those by epoch too.
        "pretrain": pretrain(data={"name": "digits", "limit": 64}, batch_size=64, epochs=51, run={"record": RECORD}),
        "knn": {"kind": "knn", "data": DIGITS, "images": IMAGES, "backbone_from": {"job": "pretrain"}},
        "linear": {**CACHED, "data": DIGITS, "images": IMAGES, "backbone_from": {"job": "pretrain"}},
        "untrained": {
            "kind": "knn",
            "data": DIGITS,
            "images": IMAGES,
            "backbone_from": {"random": 0},
            "backbone": {"name": "tiny"},
        },
    }
    made = client.submit_experiment({"name": "whole", "jobs": jobs})
    assert {job.name: job.state for job in made.jobs} == {
        "pretrain": "queued", "knn": "waiting", "linear": "waiting", "untrained": "queued",
    }  # fmt: skip
    done = {brief.name: ended(client, brief.id) for brief in made.jobs}
    assert {name: job.state for name, job in done.items()} == dict.fromkeys(jobs, "succeeded"), done
    assert 0 < done["knn"].result["scores"]["top1"]["last"] <= 100
    judged = [done["knn"], done["untrained"]]
    compared = client.compare([job.id for job in judged])
    top1 = next(row for row in compared.scores if row.score == "top1")
    assert [cell and cell.last for cell in top1.cells] == [job.result["scores"]["top1"]["last"] for job in judged]
    assert "/backbone_from/job" in {difference.name for difference in compared.spec}

    agreement = compare(stack.endpoints["database"], stack.endpoints["mlflow"], "whole", token=stack.mlflow_token)
    assert agreement.faults == []
    assert set(agreement.points) == set(jobs)

    lets_a_browser_in(stack, client, done["knn"])

    runs = mlflow_runs(stack, "whole")
    parent = runs["pretrain"]
    assert parent["info"]["status"] == "FINISHED"
    params, tags = pairs(parent, "params"), pairs(parent, "tags")
    assert params["learning_rate"] == "0.003"
    assert len(params) <= 12
    assert tags["barlow.spec_digest"] == done["pretrain"].spec_digest
    assert tags["barlow.job_id"] == str(done["pretrain"].id)
    assert {"barlow.torch", "barlow.python", "barlow.node", "barlow.attempts", "barlow.world_size"} <= set(tags)
    for child in ("knn", "linear"):
        assert pairs(runs[child], "tags")["mlflow.parentRunId"] == parent["info"]["run_id"]
    assert "mlflow.parentRunId" not in pairs(runs["untrained"], "tags")
    images = artifacts(stack, parent, "images")
    assert sum("pictures~correlation+step+" in name and name.endswith(".png") for name in images) == 52
    assert {"backbone/model.safetensors", "backbone/config.json"} <= set(artifacts(stack, parent, "backbone"))

    # Where heavy libraries have no business.
    hidden = ("worker",) if os.geteuid() == 0 else ()  # from its own account
    for module in ("service.api", "service.scheduling", *hidden):
        maps = Path(f"/proc/{stack.child(module).pid}/maps").read_text()
        assert "libtorch" not in maps, module


@pytest.mark.faults
def test_two_ranks_killed_twice_end_as_if_nothing_had_been(stack: Up, client: Client) -> None:
    spec = pretrain(resources={"slots": 2}, epochs=8)
    spec["run"]["checkpoint"] = {"every_steps": 4}
    calm = client.submit_job({**spec, "name": "calm"}, experiment="kills").id
    hard = client.submit_job({**spec, "name": "hard"}, experiment="kills").id
    assert kill_in_mid_run(stack, hard, 1) == 2
    assert kill_in_mid_run(stack, hard, 2) == 2
    undisturbed, disturbed = ended(client, calm), ended(client, hard)
    assert (undisturbed.state, disturbed.state) == ("succeeded", "succeeded"), disturbed
    assert attempts(stack, calm) == ["ok"]
    assert attempts(stack, hard) == ["crashed", "crashed", "ok"]

    points = science(client, hard)
    assert points == science(client, calm)
    assert {step for key, step in points if key == "loss"} == set(range(1, 65))
    assert disturbed.result["backbone"] == undisturbed.result["backbone"]
    short = [fault for fault in compare_all(stack, "kills") if "at least 50" not in fault]
    assert short == []


def test_a_running_job_is_cancelled(stack: Up, client: Client) -> None:
    job = client.submit_job(pretrain(name="endless", epochs=10_000), experiment="stops").id
    until(client, job, lambda seen: "loss" in seen.last_metrics)
    assert client.cancel(job).cancel_requested
    done = until(client, job, lambda seen: seen.state.terminal, 60)
    assert done.state == "cancelled"
    assert attempts(stack, job) == ["stopped"]
    assert stack.ranks(job) == []
    assert all(slot.job is None for node in client.nodes().items for slot in node.slots)


def test_what_never_worked_says_why(stack: Up, client: Client) -> None:
    bad = pretrain(optimizer={"name": "sgd", "learning_rate": 1e30}, epochs=50)
    knn = {"kind": "knn", "data": DIGITS, "images": IMAGES, "backbone_from": {"job": "bad"}}
    made = client.submit_experiment({"name": "failing", "jobs": {"bad": bad, "after": knn}})
    ids = {brief.name: brief.id for brief in made.jobs}
    failed = until(client, ids["bad"], lambda seen: seen.state.terminal)
    assert failed.state == "failed"
    assert failed.error["class"] == "diverged"
    assert failed.error["message"]
    assert attempts(stack, ids["bad"]) == ["diverged"]
    waited = until(client, ids["after"], lambda seen: seen.state.terminal)
    assert waited.state == "cancelled"
    assert "bad" in waited.reason.words

    with pytest.raises(ApiError) as refused:
        client.submit_job(knn | {"name": "late", "backbone_from": {"job": str(ids["bad"])}}, experiment="failing")
    assert refused.value.problem.status == 422
    assert [fault.pointer for fault in refused.value.problem.errors] == ["/backbone_from/job"]
    with pytest.raises(ApiError) as unknown:
        client.submit_job(knn | {"data": "digit"}, experiment="failing")
    assert unknown.value.problem.status == 422
    assert "/data/name" in [fault.pointer for fault in unknown.value.problem.errors]


def test_a_crash_shows_its_class_and_the_end_of_the_log(stack: Up, client: Client) -> None:
    spec = pretrain(name="crashes", epochs=10_000)
    spec["run"]["max_restarts"] = 0
    job = client.submit_job(spec, experiment="stops").id
    until(client, job, lambda seen: "loss" in seen.last_metrics)
    for process in stack.ranks(job):
        process.send_signal(signal.SIGABRT)
    done = until(client, job, lambda seen: seen.state.terminal)
    assert done.state == "failed"
    assert done.error["class"] == "crashed"
    assert "SIGABRT" in done.error["message"]
    log = "".join(client.log(job)).splitlines()
    assert any(line.startswith("[0] training  epoch") for line in log), log
    assert "[0] Fatal Python error: Aborted" in log, "where the rank was is there, too"
    # A line of the tail is cut where it gets very long.
    assert [line[:200] for line in done.error["log_tail"]] == [line[:200] for line in log[-40:]]


def test_without_redis_a_job_starts_by_the_poll(stack: Up, client: Client) -> None:
    (redis,) = [p for p in stack.processes() if p.cmdline()[0] == "valkey-server"]
    redis.suspend()
    try:
        spec = {"kind": "knn", "data": DIGITS, "images": IMAGES, "backbone_from": {"pixels": True}}
        job = client.submit_job({**spec, "name": "unannounced"}, experiment="stops").id
        until(client, job, lambda seen: seen.state == "running", 60)
    finally:
        redis.resume()
    assert until(client, job, lambda seen: seen.state.terminal).state == "succeeded"


CACHED = {"kind": "linear", "protocol": "cached-features"}
RECORD = {"metrics_every_steps": 1, "correlation_every_epochs": 1}
DIGITS = {"name": "digits", "limit": 400}


def attempts(stack: Up, job_id: UUID) -> list[str | None]:
    """Outcomes of a job's attempts, oldest first."""
    items = httpx.get(f"{stack.endpoints['api']}/api/v1/jobs/{job_id}/attempts", headers=stack.bearer).json()["items"]
    return [item["outcome"] for item in items]


def compare_all(stack: Up, experiment: str) -> list[str]:
    agreement = compare(stack.endpoints["database"], stack.endpoints["mlflow"], experiment, token=stack.mlflow_token)
    assert agreement.total > 0
    return agreement.faults


def lets_a_browser_in(stack: Up, client: Client, job: JobDetail) -> None:
    """The link that `barlow show` prints leads by one button to the job's run."""
    shown = subprocess.run(
        [*stack.barlow, "show", str(job.id), "--data", str(stack.directory)], capture_output=True, text=True, check=True
    ).stdout
    (link,) = re.findall(r"^MLflow: (http://\S+/enter\?code=\S+)$", shown, re.MULTILINE)
    with httpx.Client(headers={"Origin": stack.endpoints["mlflow"]}) as browser:
        code = re.search(r'name="code" value="([^"]+)"', browser.get(link).raise_for_status().text)
        assert code
        entered = browser.post(link.split("?")[0], data={"code": code[1]})
        assert (entered.status_code, entered.headers["location"]) == (
            303, job.links.mlflow.removeprefix(stack.endpoints["mlflow"])
        )  # fmt: skip
        run = entered.headers["location"].split("/runs/")[1].split("?")[0]
        read = f"{stack.endpoints['mlflow']}/ajax-api/2.0/mlflow/runs/get"
        assert browser.get(read, params={"run_id": run}).raise_for_status().json()["run"]["info"]["run_name"] == "knn"
        assert client.job(job.id).links.mlflow == job.links.mlflow  # without a code


def mlflow_runs(stack: Up, experiment: str) -> dict[str, dict[str, Any]]:
    """Runs of an MLflow experiment by name."""
    with stack.ask_mlflow() as client:
        found = client.get("experiments/get-by-name", params={"experiment_name": experiment}).json()
        body = {"experiment_ids": [found["experiment"]["experiment_id"]]}
        return {run["info"]["run_name"]: run for run in client.post("runs/search", json=body).json()["runs"]}


def pairs(run: dict[str, Any], what: str) -> dict[str, str]:
    return {item["key"]: item["value"] for item in run["data"][what]}


def artifacts(stack: Up, run: dict[str, Any], path: str) -> list[str]:
    """Artifact names of a run below `path`."""
    parameters = {"run_id": run["info"]["run_id"], "path": path}
    with stack.ask_mlflow() as client:
        answer = client.get("artifacts/list", params=parameters)
    return [file["path"] for file in json.loads(answer.content).get("files", [])]
