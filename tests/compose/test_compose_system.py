"""The system in containers from outside: the demo with a token, then whatever a server goes through in mid-run."""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import textwrap
from collections.abc import Callable

import httpx
import pytest
import torch
from deployment import ROOT, Deployment, run
from fault_stack import pretrain
from oracle import Oracle
from safetensors.torch import load_file

from barlow_lab.specs import load_spec_file
from service.client.api import Client
from service.ledger.states import JobState
from service.local.agreement import compare

DEMO = "demo"


def test_nobody_gets_in_without_a_token_and_a_reader_runs_nothing(system: Deployment) -> None:
    api = f"{system.endpoints['api']}/api/v1"
    assert httpx.get(f"{api}/jobs").status_code == 401
    assert httpx.get(f"{api}/jobs", headers={"Authorization": "Bearer barlow_wrong"}).status_code == 401
    reader = system.ask(lambda client: client.create_token("looks", "reader")).secret
    headers = {"Authorization": f"Bearer {reader}"}
    assert httpx.get(f"{api}/jobs", headers=headers).status_code == 200
    assert httpx.post(f"{api}/jobs", headers=headers, json=pretrain()).status_code == 403


def test_the_demo_runs_from_outside_and_both_records_agree(system: Deployment) -> None:
    token = system.ask(lambda client: client.create_token("demo-user", "submitter")).secret
    with Client(system.endpoints["api"], token) as client:
        experiment = client.submit_experiment(load_spec_file(ROOT / "recipes" / "demo.yaml"))
        jobs = {job.name: job.id for job in experiment.jobs}
        kinds = [event.kind for event in client.events(jobs["pretrain"])]  # server-sent events, until the job has ended
        assert kinds[0] == "submitted"
        assert "succeeded" in kinds
        for job_id in jobs.values():
            for _ in client.events(job_id):
                pass
            system.wait(lambda job_id=job_id: client.job(job_id).recording.mlflow == "complete", "it is recorded")
            assert client.job(job_id).state == JobState.SUCCEEDED
        trained, untrained = (client.job(jobs[name]).result for name in ("knn", "knn-untrained"))
        assert trained is not None
        assert untrained is not None
        assert trained["scores"]["top1"]["last"] - untrained["scores"]["top1"]["last"] >= 30
    agreement = compare(system.endpoints["database"], system.endpoints["mlflow"], experiment.name, token=system.token)
    assert agreement.faults == []
    assert agreement.total > 1000


def test_a_placed_job_wakes_its_node(system: Deployment) -> None:
    """Jobs would begin without it, too, by the worker's poll: the scheduler says when it cannot wake a node."""
    said = system.compose("logs", "scheduler")
    assert "placed on node-1" in said
    assert "wake-ups do not get through" not in said


def test_a_checkpoint_and_a_backbone_can_be_downloaded_and_loaded(system: Deployment) -> None:
    job_id = next(job.id for job in system.ask(lambda client: client.experiment(DEMO)).jobs if job.name == "pretrain")
    headers = {"Authorization": f"Bearer {system.token}"}
    with httpx.Client(base_url=f"{system.endpoints['api']}/api/v1/jobs/{job_id}", headers=headers) as client:
        rows = {
            row["kind"]: row
            for row in client.get("/checkpoints", params={"page_size": 1000}).json()["items"]
            if row["deleted_at"] is None
        }
        state = client.get(f"/checkpoints/{rows['last']['id']}/download").raise_for_status().content
        weights = client.get(f"/checkpoints/{rows['backbone']['id']}/download").raise_for_status().content
    assert hashlib.sha256(state).hexdigest() == rows["last"]["sha256"]
    assert set(torch.load(io.BytesIO(state), weights_only=True)) >= {"model", "optimizer"}
    file = system.place / "model.safetensors"
    file.write_bytes(weights)
    assert load_file(file)


def _kill_the_worker(system: Deployment) -> None:
    system.kill_from_within("worker")


def _restart_redis(system: Deployment) -> None:
    system.compose("restart", "redis")


def _restart_postgres(system: Deployment) -> None:
    system.compose("restart", "postgres")


def _down_and_up(system: Deployment) -> None:
    volumes = _volumes(system)
    system.down()
    assert system.containers() == []
    assert _volumes(system) == volumes
    system.up()


@pytest.mark.parametrize("fault", [_kill_the_worker, _restart_redis, _restart_postgres, _down_and_up])
@pytest.mark.parametrize("slots", [1, 2])
def test_a_job_in_mid_run_ends_as_if_nothing_had_been(
    system: Deployment, oracle: Oracle, fault: Callable[[Deployment], None], slots: int
) -> None:
    spec = pretrain(slots, epochs=60)
    oracle.prepare(spec)
    job_id = system.submit(spec, f"{fault.__name__.strip('_')}-{slots}".replace("_", "-"))
    system.wait(lambda: system.reached(job_id, 40), "the job is in mid-run")
    fault(system)
    if fault in (_kill_the_worker, _down_and_up):
        oracle.check(job_id)
        assert len(system.attempts(job_id)) == 2
    else:
        assert not JobState(system.job(job_id).state).terminal, "the fault came too late"
        oracle.check(job_id)
    oracle.check_idle()
    states = {found["Service"]: (found["State"], found["ExitCode"]) for found in system.containers()}
    assert (states.pop("databases"), states.pop("migrate")) == (("exited", 0), ("exited", 0))
    assert set(states.values()) == {("running", 0)}, states


def test_the_worker_s_image_can_compile_a_network(system: Deployment) -> None:
    """torch.compile wants a compiler, and a folder for what it builds from which code may run."""
    job_id = system.submit(pretrain(epochs=1, compile="on"), "compiled")
    assert system.wait_for_end(job_id, seconds=300).state == JobState.SUCCEEDED
    assert "network compiled (" in (system.folder(job_id, 1) / "trainer.log").read_text("utf-8")


def test_what_was_recorded_before_is_still_there(system: Deployment) -> None:
    assert compare(system.endpoints["database"], system.endpoints["mlflow"], DEMO, token=system.token).faults == []


def test_a_lost_mlflow_database_is_filled_again_by_the_words_of_the_guide(system: Deployment) -> None:
    guide = (ROOT / "docs" / "operations.md").read_text("utf-8")
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```", guide, re.DOTALL | re.MULTILINE)
    emptied, filled, upgraded = (
        textwrap.dedent(next(text for _, text in blocks if word in text)).replace(
            "docker compose", shlex.join(system.command())
        )
        for word in ("DROP DATABASE", "rebuild-mlflow", "db upgrade")
    )
    for words in (emptied, upgraded):
        run(["sh", "-ec", words])
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        compare(system.endpoints["database"], system.endpoints["mlflow"], DEMO, token=system.token)
    run(["sh", "-ec", filled])
    for job_id in [job.id for job in system.ask(lambda client: client.experiment(DEMO)).jobs]:
        system.wait(
            lambda job_id=job_id: system.ask(lambda client: client.job(job_id)).recording.mlflow == "complete",
            "it is recorded again",
        )
    assert compare(system.endpoints["database"], system.endpoints["mlflow"], DEMO, token=system.token).faults == []


def test_the_health_of_each_container_is_what_its_clients_see(system: Deployment) -> None:
    for service in ("api", "mlflow", "postgres", "redis", "worker"):
        assert system.inspect(service)["State"]["Health"]["Status"] == "healthy", service
    script = "python -m worker.health"
    assert "has never registered" in _fails(system, "worker", f"BARLOW_NODE_NAME=nobody {script}")
    assert "does not answer" in _fails(system, "worker", f"BARLOW_DATABASE_URL=postgresql://a:b@redis:6379/c {script}")
    check = system.inspect("postgres")["Config"]["Healthcheck"]["Test"][1]
    assert "password authentication failed" in _fails(system, "postgres", f"export POSTGRES_PASSWORD=wrong; {check}")
    # MLflow says that it is well while it refuses the worker; the check is not taken in.
    wrong = "BARLOW_MLFLOW_TOKEN=another"
    check = shlex.join(system.inspect("mlflow")["Config"]["Healthcheck"]["Test"][1:])
    system.compose("exec", "-T", "mlflow", "sh", "-c", check)
    assert "503" in _fails(system, "mlflow", f"{wrong} {check}") or "401" in _fails(
        system, "mlflow", f"{wrong} {check}"
    )


def test_mlflow_is_behind_the_tokens(system: Deployment) -> None:
    search, assistant = "/ajax-api/2.0/mlflow/experiments/search", "/ajax-api/3.0/mlflow/assistant/config"
    ours = {"Authorization": f"Bearer {system.token}"}
    with httpx.Client(base_url=system.endpoints["mlflow"]) as mlflow:

        def status(**headers: str) -> int:
            return mlflow.post(search, json={"max_results": 1}, headers=headers).status_code

        assert status() == 401
        assert status(**ours) == 200
        assert status(Origin=system.endpoints["mlflow"], **ours) == 200
        assert status(Origin="https://elsewhere.example.org", **ours) == 403
        assert status(Host="elsewhere.example.org", **ours) == 421
        assert mlflow.get(assistant, headers=ours).status_code == 404


def test_the_command_line_is_in_the_image(system: Deployment) -> None:
    assert "imagenet-paper" in system.compose("run", "--rm", "-T", "barlow", "recipes")
    assert "node-1" in system.compose("run", "--rm", "-T", "barlow", "nodes")
    listed = system.compose("run", "--rm", "-T", "barlow", "spec", "recipes/digits.yaml")
    assert "resnet18" in listed


def _fails(system: Deployment, service: str, script: str) -> str:
    """What a command in a container says when it fails, as it must."""
    with pytest.raises(AssertionError, match="exit status") as failed:
        system.compose("exec", "-T", service, "sh", "-c", script)
    return str(failed.value)


def _volumes(system: Deployment) -> set[str]:
    names = run(["docker", "volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={system.project}"])
    return set(names.split())
