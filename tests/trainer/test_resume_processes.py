"""Real processes: one and two ranks, killed and resumed, failing alone; the end is always in outcome.json."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import failing_ranks
import pytest
import ranks
import runs
import torch

from trainer import run_directory
from trainer.pretraining import pretrain

SPEC = runs.spec(
    precision="fp64",
    batch_size=32,
    epochs=10,
    optimizer={"name": "lars", "bias_learning_rate": 0.01},
    run={
        "checkpoint": {"every_steps": 7, "every_epochs": 4},
        "record": {"metrics_every_steps": 1, "correlation_every_epochs": 5},
    },
)
STEPS = 50


def _command(folder: Path) -> list[object]:
    (folder / "spec.yaml").write_text(json.dumps(SPEC.resolved()))
    return ["-m", "trainer", folder / "spec.yaml", "--run-dir", folder / "run"]


def _wait_for(run: Path, kind: str, step: int = 0, attempt: int = 1) -> None:
    deadline = time.monotonic() + 100
    while not any((e.step or 0) >= step for e in runs.events(run, attempt, kind)):
        assert time.monotonic() < deadline, f"there was no {kind} of step {step}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run undisturbed, in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("one")
    assert pretrain(SPEC, runs.context(folder)).outcome == "ok"
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run undisturbed, as two processes."""
    folder = tmp_path_factory.mktemp("two")
    assert ranks.finish(ranks.start(_command(folder), 2, folder)) == [0, 0], ranks.log(folder)
    return folder / "run"


def test_two_ranks_and_one_give_the_same_curve(one_rank, two_ranks):
    assert len(runs.events(two_ranks, kind="started")[0].data["ranks"]) == 2
    one, two = runs.series(one_rank), runs.series(two_ranks)
    assert one.keys() == two.keys()
    assert sum(name == "loss" for name, _ in one) == STEPS
    for point, value in one.items():
        assert two[point] == pytest.approx(value, rel=1e-8, abs=1e-12), point


def test_one_rank_killed_at_a_random_step_and_resumed_equals_the_undisturbed_run(one_rank, tmp_path):
    doomed = ranks.start(_command(tmp_path), 1, tmp_path)
    _wait_for(tmp_path / "run", "metrics", step=random.randint(8, 30))
    doomed[0].send_signal(signal.SIGKILL)
    assert ranks.finish(doomed) == [-signal.SIGKILL]
    assert not (tmp_path / "run/attempts/0001/outcome.json").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert pretrain(SPEC, runs.context(tmp_path / "run", 2)).outcome == "ok"
    torch.set_num_threads(threads)
    assert runs.resume_step(tmp_path / "run", 2) >= 7
    _assert_equal(tmp_path / "run", 2, one_rank)


def test_two_ranks_stopped_killed_and_resumed_equal_the_undisturbed_run(two_ranks, tmp_path):
    run = tmp_path / "run"
    stopped = ranks.start(_command(tmp_path), 2, tmp_path)
    _wait_for(run, "started")
    stopped[1].send_signal(signal.SIGTERM)  # any rank may hear it, all stop at the same step
    assert ranks.finish(stopped) == [0, 0], ranks.log(tmp_path)
    end = runs.outcome_of(run, 1)
    assert (end["outcome"], end["message"]) == ("stopped", f"stopped at step {end['step']}: signal")
    assert runs.events(run, 1, "stopped")[0].data["reason"] == "signal"
    assert not (run / "backbone").exists()

    killed = ranks.start(_command(tmp_path), 2, tmp_path)
    _wait_for(run, "metrics", step=random.randint(10, 30), attempt=2)
    killed[1].send_signal(signal.SIGKILL)  # the other one must not wait for it
    assert ranks.finish(killed) == [1, -signal.SIGKILL]
    end = runs.outcome_of(run, 2)
    assert end["outcome"] == "crashed"
    assert "another rank ended" in end["message"]
    assert runs.events(run, 2, "failed")[0].data["outcome"] == "crashed"

    assert ranks.finish(ranks.start(_command(tmp_path), 2, tmp_path)) == [0, 0], ranks.log(tmp_path)
    assert runs.resume_step(run, 2) == runs.outcome_of(run, 1)["step"]
    assert runs.resume_step(run, 3) >= 7
    _assert_equal(run, 3, two_ranks)
    names = ("backbone/model.safetensors", "backbone/config.json")  # published by rank 0
    assert all((run / name).read_bytes() == (two_ranks / name).read_bytes() for name in names)


def _assert_equal(resumed: Path, attempt: int, undisturbed: Path) -> None:
    """Every metric, parameter, statistic and the optimiser, to the last bit."""
    assert runs.series(resumed) == runs.series(undisturbed)
    for part in ("model", "optimizer"):
        ends = [runs.checkpoint(run, n, STEPS)[part] for run, n in ((resumed, attempt), (undisturbed, 1))]
        assert runs.same(*ends), part
    last = [runs.events(run, n, "correlation")[-1].data for run, n in ((resumed, attempt), (undisturbed, 1))]
    assert last[0] == last[1]
    assert runs.events(resumed, attempt, "warning") == []


def test_one_failing_rank_ends_all_and_its_cause_is_the_outcome(tmp_path):
    command = _command(tmp_path)
    script = [failing_ranks.__file__, command[2], command[4]]
    statuses = ranks.finish(ranks.start(script, 2, tmp_path, BARLOW_ATTEMPT_TOKEN="t-1"))
    assert statuses == [1, 1], ranks.log(tmp_path)
    end = runs.outcome_of(tmp_path / "run")
    assert (end["outcome"], end["message"], end["error_class"]) == ("bad_data", "image 7 cannot be loaded", "DataError")
    assert end["step"] == failing_ranks.AT_STEP - 1
    assert end["token"] == "t-1"
    assert "failing_update" in end["traceback"]
    assert "another rank of this attempt failed" in ranks.log(tmp_path)


def _execute(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        cwd=folder, env=ranks.environment(**environment), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_bad_spec_by_hand_names_every_fault_and_makes_nothing(tmp_path):
    (tmp_path / "bad.yaml").write_text("kind: pretrain\ndata: digits\nepoch: 3\nbatch_size: -1\n")
    done = _execute(tmp_path, "bad.yaml", "--run-dir", "run")
    assert done.returncode == 1
    assert "/epoch: unknown field; did you mean 'epochs'?" in done.stderr
    assert "/batch_size:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_worker_s_attempt_ends_in_its_own_folder(tmp_path):
    """With --attempt the trainer takes inputs.json as it is, publishes nothing, and fails into outcome.json."""
    run = tmp_path / "run"
    folder = run / "attempts/0003"
    folder.mkdir(parents=True)
    spec = {**SPEC.resolved(), "data": {"name": "digits", "limit": 32}, "max_steps": 1, "batch_size": 31}
    (run / "spec.json").write_text(json.dumps(spec))
    (folder / "inputs.json").write_text('{"backbone": null, "data": {"digits": {"root": null}}}')
    arguments = (run / "spec.json", "--run-dir", run, "--attempt", 3, "--threads", 1)
    done = _execute(tmp_path, *arguments, BARLOW_ATTEMPT_TOKEN="t-9")
    assert done.returncode == 0, done.stderr
    end = runs.outcome_of(run, 3)
    assert (end["outcome"], end["backbone"], end["token"], end["step"]) == ("ok", "backbone", "t-9", 1)
    assert end["result"]["backbone"]["features"] == 128
    assert (folder / "backbone/model.safetensors").exists()
    assert not (run / "backbone").exists()
    assert [e.kind for e in runs.events(run, 3)][-2:] == ["result", "finished"]


def test_a_lease_not_renewed_ends_the_process(tmp_path):
    alive = tmp_path / "alive"
    alive.touch()
    script = (
        "import time; from trainer.runtime import watchdog; watchdog.watch_lease();"
        "print('up', flush=True); time.sleep(60)"
    )
    environment = ranks.environment(BARLOW_ALIVE_FILE=str(alive), BARLOW_ALIVE_SECONDS="3")
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    renewed_until = time.monotonic() + 5
    while time.monotonic() < renewed_until:
        os.utime(alive)
        time.sleep(0.2)
    assert process.poll() is None, "it ended although its lease was renewed"
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"was not renewed for 3 s" in errors


def test_a_lease_that_cannot_be_looked_at_is_not_renewed(tmp_path):
    alive = tmp_path / "attempt/alive"
    alive.parent.mkdir()
    alive.touch()
    script = (
        "import time; from trainer.runtime import watchdog; watchdog.watch_lease();"
        "print('up', flush=True); time.sleep(60)"
    )
    environment = ranks.environment(BARLOW_ALIVE_FILE=str(alive), BARLOW_ALIVE_SECONDS="2")
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    alive.parent.rename(tmp_path / "away")
    alive.parent.touch()  # from now on looking is an error, as on a volume that went away
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"was not renewed for 2 s" in errors


def test_a_failure_that_cannot_be_written_down_still_ends_the_process(tmp_path):
    """The disk takes nothing any more, and something of the process would wait for ever."""
    run_directory.begin_by_hand(tmp_path / "run", SPEC, None)
    script = (
        "import resource, sys, threading, time; from pathlib import Path; from trainer.execution import execute;"
        "threading.Thread(target=time.sleep, args=(600,)).start();"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400));"
        "execute(*map(Path, sys.argv[1:]), attempt=None, backbone=None, threads=1)"
    )
    _command(tmp_path)
    doomed = ranks.start(["-c", script, tmp_path / "spec.yaml", tmp_path / "run"], 1, tmp_path)
    assert ranks.finish(doomed, timeout=60) == [1]
    assert not (tmp_path / "run/attempts/0002/outcome.json").exists()


def test_a_process_dies_with_its_parent_and_tells_its_stacks(tmp_path):
    child = (
        "import time; from trainer.runtime import signals, watchdog;"
        "watchdog.die_with_parent(); signals.stacks_on_signal(); print('up', flush=True); time.sleep(120)"
    )
    parent = (
        "import os, subprocess, sys;"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE,"
        " env=os.environ | {'BARLOW_PARENT_PID': str(os.getpid())});"
        "p.stdout.readline(); print(p.pid, flush=True); p.wait()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], env=ranks.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    pid = int(process.stdout.readline())
    os.kill(pid, signal.SIGUSR1)
    stack = process.stderr.readline() + process.stderr.readline()
    assert b"most recent call first" in stack
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
