"""Real processes that end for another reason than a finished run: the end is in outcome.json, and no rank stays."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import failing_ranks
import pytest
import ranks
import runs
import torch
from fifty_steps import SPEC, command, wait_for

from trainer import by_hand


def test_one_failing_rank_ends_all_and_its_cause_is_the_outcome(tmp_path):
    script = [failing_ranks.__file__, command(tmp_path)[2], tmp_path / "run"]
    statuses = ranks.finish(ranks.start(script, 2, tmp_path, BARLOW_ATTEMPT_TOKEN="t-1"))
    assert statuses == [1, 1], ranks.log(tmp_path)
    end = runs.outcome_of(tmp_path / "run")
    assert (end["outcome"], end["message"], end["error_class"]) == ("bad_data", "image 7 cannot be loaded", "DataError")
    assert end["step"] == failing_ranks.AT_STEP - 1
    assert end["token"] == "t-1"
    assert "failing_update" in end["traceback"]
    assert "another rank of this attempt failed" in ranks.log(tmp_path)


def _attempt_of_a_worker(run: Path) -> list[object]:
    (run / "attempts/0001").mkdir(parents=True)
    (run / "spec.json").write_text(json.dumps(SPEC.resolved()))
    (run / "attempts/0001/inputs.json").write_text('{"backbone": null, "data": {"digits": null}}')
    return [run / "spec.json", "--run-dir", run, "--attempt", 1]


def _wait_until(said: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_rank_gone_before_they_met_does_not_keep_the_other_which_tells_its_stacks(tmp_path):
    run, go = tmp_path / "run", tmp_path / "go"
    script = (
        "import os, pathlib, signal, time\n"
        "from trainer.__main__ import main, rendezvous\n"
        "if os.environ['RANK'] == '0': main()\n"
        "rendezvous.arrive()\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    both = ranks.start(["-c", script, *_attempt_of_a_worker(run)], 2, tmp_path)

    def waits() -> bool:
        if list(tmp_path.glob("rendezvous-*.rank-0")):
            both[0].send_signal(signal.SIGUSR1)  # also while torch is loaded
        return 'process_group.py", line' in ranks.log(tmp_path)

    _wait_until(waits)
    assert both[0].poll() is None
    go.touch()
    assert ranks.finish(both, timeout=60) == [1, -signal.SIGKILL]
    end = runs.outcome_of(run)
    assert (end["outcome"], end["message"]) == ("crashed", "rank 1 ended before the ranks had met, perhaps killed")


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_while_torch_is_loaded_it_stops_before_its_first_step(tmp_path, asked):
    run = tmp_path / "run"
    early = ranks.start(["-m", "trainer", *_attempt_of_a_worker(run)], 1, tmp_path)
    _wait_until(lambda: bool(list(tmp_path.glob("rendezvous-*.rank-0"))))
    early[0].send_signal(asked)
    assert ranks.finish(early) == [0], ranks.log(tmp_path)
    end = runs.outcome_of(run)
    assert (end["outcome"], end["message"]) == ("stopped", "stopped at step 0: signal")


@pytest.mark.parametrize(("nohup", "heard"), [([], "True"), (["nohup"], "False")])
def test_the_end_of_the_terminal_asks_for_a_stop_but_not_under_nohup(nohup, heard):
    script = (
        "import os, signal; from trainer.runtime import signals; signals.hear_stop();"
        "os.kill(os.getpid(), signal.SIGHUP); print(signals.stop_heard())"
    )
    said = subprocess.check_output(
        [*nohup, sys.executable, "-c", script], env=ranks.environment(), stdin=subprocess.DEVNULL, text=True
    )
    assert said.strip() == heard


@pytest.mark.faults
def test_a_torchrun_whose_terminal_is_gone_writes_a_checkpoint_and_says_stopped(tmp_path):
    run = tmp_path / "run"
    (tmp_path / "spec.json").write_text(json.dumps({**SPEC.resolved(), "epochs": 10_000}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer"]
    with (tmp_path / "torchrun.log").open("wb") as log:
        torchrun = subprocess.Popen(
            [*command, str(tmp_path / "spec.json"), "--run-dir", str(run)],
            env=ranks.environment(), stdout=log, stderr=log,
        )  # fmt: skip
    wait_for(run, "metrics", 2)
    torchrun.send_signal(signal.SIGHUP)
    torchrun.wait(60)
    assert runs.outcome_of(run)["outcome"] == "stopped", (tmp_path / "torchrun.log").read_text()
    assert list((run / "attempts/0001/checkpoints").glob("step-*"))


def test_a_second_interrupt_ends_a_run_at_once_in_one_line(tmp_path):
    """The first one is heard between two steps; this one does not wait for them."""
    run = tmp_path / "run"
    command = _attempt_of_a_worker(run)
    (run / "spec.json").write_text(json.dumps({**SPEC.resolved(), "epochs": 10_000}))
    script = (
        "from trainer.__main__ import main\n"
        "from trainer.runtime import stopping\n"
        "stopping.StopRequests.requested = lambda self, step: False\n"
        "main()"
    )
    alone = ranks.start(["-c", script, *command], 1, tmp_path)
    wait_for(run, "metrics", 2)
    for _ in range(2):
        alone[0].send_signal(signal.SIGINT)
        time.sleep(0.5)
    assert ranks.finish(alone, timeout=60) == [1]
    assert "interrupted: no checkpoint was written; the same command goes on from the last one" in ranks.log(tmp_path)
    assert "Traceback" not in ranks.log(tmp_path)


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_rank_whose_gpu_torch_cannot_use_does_not_train_on_the_cpu(tmp_path):
    run = tmp_path / "run"
    done = _execute(tmp_path, *_attempt_of_a_worker(run), CUDA_VISIBLE_DEVICES="GPU-aaaa")
    assert done.returncode == 1
    end = runs.outcome_of(run)
    assert end["outcome"] == "crashed"
    assert end["message"].startswith("OSError: torch cannot use the GPU that CUDA_VISIBLE_DEVICES=GPU-aaaa gives this")
    assert "set CUDA_VISIBLE_DEVICES to nothing" in end["message"]


@pytest.mark.parametrize(("changes", "status"), [({}, 0), ({"batch_size": 1 << 20}, 1)])
def test_nothing_runs_in_a_rank_after_its_last_word(tmp_path, changes, status):
    """An abort while the interpreter takes its libraries down would make a failure of a run that is done."""
    run = tmp_path / "run"
    arguments = _attempt_of_a_worker(run)
    (run / "spec.json").write_text(json.dumps({**SPEC.resolved(), "epochs": 1, "max_steps": 1, **changes}))
    script = "import atexit, os; from trainer.__main__ import main; atexit.register(os.abort); main()"
    assert ranks.finish(ranks.start(["-c", script, *arguments], 1, tmp_path)) == [status], ranks.log(tmp_path)
    end = runs.outcome_of(run)
    assert end["outcome"] == ("bad_spec" if status else "ok")
    assert ranks.log(tmp_path).endswith(f"{end['message']}\n")


def test_a_worker_s_attempt_ends_in_its_own_folder(tmp_path):
    """With --attempt the trainer takes inputs.json as it is, publishes nothing, and fails into outcome.json."""
    run = tmp_path / "run"
    folder = run / "attempts/0003"
    folder.mkdir(parents=True)
    spec = {**SPEC.resolved(), "data": {"name": "digits", "limit": 32}, "max_steps": 1, "batch_size": 31}
    (run / "spec.json").write_text(json.dumps(spec))
    (folder / "inputs.json").write_text('{"backbone": null, "data": {"digits": null}}')
    arguments = (run / "spec.json", "--run-dir", run, "--attempt", 3, "--threads", 1)
    done = _execute(tmp_path, *arguments, BARLOW_ATTEMPT_TOKEN="t-9")
    assert done.returncode == 0, done.stderr
    end = runs.outcome_of(run, 3)
    assert (end["outcome"], end["backbone"], end["token"], end["step"]) == ("ok", "backbone", "t-9", 1)
    assert end["result"]["backbone"]["features"] == 128
    assert (folder / "backbone/model.safetensors").exists()
    assert not (run / "backbone").exists()
    assert [e.kind for e in runs.events(run, 3)][-2:] == ["result", "finished"]


def _renew(alive):
    """As the worker does: by the clock that goes on while the machine sleeps."""
    alive.touch()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    os.utime(alive, (now, now))


def test_a_lease_that_ran_out_while_the_process_began_ends_it_at_once(tmp_path):
    alive = tmp_path / "alive"
    _renew(alive)
    long_ago = time.clock_gettime(time.CLOCK_BOOTTIME) - 50
    os.utime(alive, (long_ago, long_ago))
    script = "import time; from trainer.runtime import watchdog; watchdog.watch_lease(None); time.sleep(40)"
    environment = ranks.environment(BARLOW_ALIVE_FILE=str(alive), BARLOW_ALIVE_SECONDS="45")
    begun = time.monotonic()
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 1
    assert time.monotonic() - begun < 40


def test_a_lease_not_renewed_ends_the_process(tmp_path):
    alive = tmp_path / "alive"
    _renew(alive)
    script = (
        "import time; from trainer.runtime import watchdog; watchdog.watch_lease(None);"
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
        _renew(alive)
        time.sleep(0.2)
    assert process.poll() is None, "it ended although its lease was renewed"
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"was not renewed for 3 s" in errors


def test_a_lease_that_cannot_be_looked_at_is_not_renewed(tmp_path):
    alive = tmp_path / "attempt/alive"
    alive.parent.mkdir()
    _renew(alive)
    script = (
        "import time; from trainer.runtime import watchdog; watchdog.watch_lease(None);"
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


def test_a_rank_that_ends_by_its_lease_leaves_no_crash_of_the_others(tmp_path):
    """A lost attempt is not counted as a retry: rank 0 must not take the broken collective for the cause."""
    alive, run = tmp_path / "alive", tmp_path / "run"
    _renew(alive)
    script = (
        "import os\n"
        "from trainer.__main__ import main\n"
        "os.environ['BARLOW_ALIVE_SECONDS'] = '3600' if os.environ['RANK'] == '0' else '600'\n"
        "main()"
    )
    arguments = _attempt_of_a_worker(run)
    (run / "spec.json").write_text(json.dumps({**SPEC.resolved(), "epochs": 10_000}))
    both = ranks.start(["-c", script, *arguments], 2, tmp_path, BARLOW_ALIVE_FILE=str(alive))
    wait_for(run, "metrics", 5)
    long_ago = time.clock_gettime(time.CLOCK_BOOTTIME) - 1000
    os.utime(alive, (long_ago, long_ago))
    assert ranks.finish(both, timeout=60) == [1, 1], ranks.log(tmp_path)
    assert "was not renewed for 600 s" in ranks.log(tmp_path, 1)
    assert not (run / "attempts/0001/outcome.json").exists(), runs.outcome_of(run)


@pytest.mark.parametrize("log", ["full disk", "pipe that nobody empties"])
def test_a_lost_lease_ends_a_process_whose_last_word_is_not_taken(tmp_path, log):
    alive = tmp_path / "alive"
    _renew(alive)
    script = (
        "import contextlib, os, time; from trainer.runtime import watchdog\n"
        "os.set_blocking(2, False)\n"
        "with contextlib.suppress(OSError):\n"
        "    while True: os.write(2, b'x')\n"
        "os.set_blocking(2, True); watchdog.watch_lease(None); time.sleep(60)"
    )
    environment = ranks.environment(BARLOW_ALIVE_FILE=str(alive), BARLOW_ALIVE_SECONDS="1")
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stderr=full if log == "full disk" else subprocess.PIPE
        )
        try:
            assert process.wait(timeout=40) == 1
        finally:
            process.kill()
            process.communicate()


def test_a_failure_that_cannot_be_written_down_still_ends_the_process(tmp_path):
    """The disk takes nothing any more, and something of the process would wait for ever."""
    by_hand.begin(tmp_path / "run", SPEC, None)
    script = (
        "import resource, sys, threading, time; from pathlib import Path; from trainer.execution import execute;"
        "threading.Thread(target=time.sleep, args=(600,)).start();"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400));"
        "execute(*map(Path, sys.argv[1:]), attempt=None, backbone=None, threads=1)"
    )
    command(tmp_path)
    doomed = ranks.start(["-c", script, tmp_path / "spec.yaml", tmp_path / "run"], 1, tmp_path)
    assert ranks.finish(doomed, timeout=60) == [1]
    assert not (tmp_path / "run/attempts/0002/outcome.json").exists()
    assert list(tmp_path.glob("run/attempts/0002/.outcome*")) == []


def test_a_process_dies_with_its_parent_and_tells_its_stacks(tmp_path):
    child = (
        "import time; from barlow_lab import kernel; from trainer.runtime import signals;"
        "kernel.die_with_parent(); signals.stacks_on_signal(); print('up', flush=True); time.sleep(120)"
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
    process.communicate()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
