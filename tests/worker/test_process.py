"""Ranks as processes: real children, real signals. The child scripts stand for any program that a rank may run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from service.completion import log_tail
from worker.process import MARK, NODE, PARENT, Ranks, devices_in_use, end_marked, end_orphans, marked

PATIENT = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


def _start(tmp_path: Path, script: str, ranks: int = 1, **env: str) -> Ranks:
    environments = [{**os.environ, "RANK": str(rank), **env} for rank in range(ranks)]
    return Ranks([sys.executable, "-c", script], environments, tmp_path / "trainer.log")


def _wait(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_logs_of_all_ranks_are_whole_lines_with_their_rank(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "for i in range(300): print(os.environ['RANK'], i)\n"
        "print('no newline', end='', file=sys.stderr)\n"
    )
    ranks = _start(tmp_path, script, ranks=3)
    _wait(lambda: None not in ranks.statuses())
    assert ranks.close() == [0, 0, 0]
    lines = (tmp_path / "trainer.log").read_text().splitlines()
    for rank in range(3):
        mine = [line for line in lines if line.startswith(f"[{rank}] ")]
        assert mine[:300] == [f"[{rank}] {rank} {i}" for i in range(300)]
        assert mine[300:] == [f"[{rank}] no newline"]
    assert len(lines) == 903


def test_a_rank_that_prints_more_than_a_pipe_holds_is_not_blocked(tmp_path: Path) -> None:
    ranks = _start(tmp_path, "import sys; sys.stdout.write('x' * 3_000_000)")
    _wait(lambda: ranks.statuses() == [0])
    ranks.close()
    assert sum(len(line) - 4 for line in (tmp_path / "trainer.log").read_text().splitlines()) == 3_000_000


def test_signal_ladder_reaches_every_rank_and_what_it_started(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    ranks = _start(tmp_path, script, ranks=2)
    log = tmp_path / "trainer.log"
    _wait(lambda: log.read_text().count("child") == 2)
    children = [int(line.split()[-1]) for line in log.read_text().splitlines()]
    assert all(os.getsid(pid) == pid for pid in ranks.pids)
    ranks.signal(signal.SIGTERM)
    _wait(lambda: not any(_alive(pid) for pid in children))
    assert ranks.statuses() == [None, None], "the ranks themselves ignore TERM"
    ranks.signal(signal.SIGKILL)
    _wait(lambda: ranks.statuses() == [-9, -9])
    ranks.close()


def test_what_a_dead_rank_leaves_in_its_session_is_killed(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('child', child.pid, flush=True)\n"
    )
    ranks = _start(tmp_path, script)
    _wait(lambda: ranks.statuses() == [0])
    ranks.close()
    child = int((tmp_path / "trainer.log").read_text().split()[-1])
    _wait(lambda: not _alive(child))


def test_close_ends_a_stopped_rank(tmp_path: Path) -> None:
    ranks = _start(tmp_path, PATIENT)
    _wait(lambda: log_tail(tmp_path / "trainer.log", 1) == ["[0] ready"])
    ranks.signal(signal.SIGSTOP)
    assert ranks.close() == [-9]


def test_a_command_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Ranks([str(tmp_path / "nothing")], [dict(os.environ)], tmp_path / "trainer.log")


def test_orphans_of_a_dead_worker_are_ended_and_ranks_of_a_living_one_are_not(tmp_path: Path) -> None:
    node = f"test-{os.getpid()}"
    env = {"BARLOW_NODE_NAME": node, "BARLOW_PARENT_PID": str(os.getpid())}
    mine = _start(tmp_path, PATIENT, **{MARK: "living"}, **env)
    dead_worker = (
        "import os, subprocess, sys\n"
        f"mark = {{{MARK!r}: 'orphan', 'BARLOW_NODE_NAME': {node!r}, 'BARLOW_PARENT_PID': str(os.getpid())}}\n"
        "env = {**os.environ, **mark}\n"
        f"print(subprocess.Popen([sys.executable, '-c', {PATIENT!r}], env=env, start_new_session=True,"
        " stdout=subprocess.DEVNULL).pid)\n"
    )
    orphan = int(subprocess.check_output([sys.executable, "-c", dead_worker]))
    _wait(lambda: marked("orphan") == [orphan])
    assert end_orphans("another-node") == []
    assert end_orphans(node) == [orphan]
    assert not _alive(orphan)
    assert mine.statuses() == [None]
    assert marked("living") == mine.pids
    mine.close()
    assert marked("living") == []


HELPED = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
    "print('child', child.pid, flush=True)\n"
    "time.sleep(60)\n"
)
"""A rank whose helper left its session."""


def test_a_helper_that_left_the_session_of_its_rank_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    other = _start(tmp_path, PATIENT, **{MARK: "other"})
    ranks = _start(tmp_path, HELPED, **{MARK: "helped", "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"})
    _wait(lambda: len(marked("helped")) == 2)
    assert {"GPU-a", "GPU-b"} <= devices_in_use()
    (helper,) = set(marked("helped")) - set(ranks.pids)
    assert ranks.close() == [-9]
    assert _alive(helper)
    assert end_marked("helped")
    assert not _alive(helper)
    assert end_marked("helped"), "nothing to do is done"
    assert not {"GPU-a", "GPU-b"} & devices_in_use()
    assert other.statuses() == [None]
    other.close()


def test_orphans_are_ended_with_what_they_started_and_a_mark_that_names_no_worker_is_left_alone(
    tmp_path: Path,
) -> None:
    node = f"test-{os.getpid()}"
    dead_worker = (
        "import os, subprocess, sys\n"
        f"mark = {{{MARK!r}: 'orphan', {NODE!r}: {node!r}, {PARENT!r}: str(os.getpid())}}\n"
        "command = [sys.executable, '-c', sys.argv[1]]\n"
        "subprocess.Popen(command, env={**os.environ, **mark}, start_new_session=True, stdout=subprocess.DEVNULL)\n"
    )
    subprocess.check_call([sys.executable, "-c", dead_worker, HELPED])
    stranger = _start(tmp_path, PATIENT, **{MARK: "stranger", NODE: node, PARENT: "?"})
    _wait(lambda: len(marked("orphan")) == 2)
    orphans = marked("orphan")
    assert end_orphans(node) == sorted(orphans)
    assert not any(_alive(pid) for pid in orphans)
    assert stranger.statuses() == [None]
    stranger.close()


def test_a_later_process_with_the_number_of_the_dead_worker_is_not_the_parent_of_its_orphans(tmp_path: Path) -> None:
    node = f"test-{os.getpid()}"
    read, write = os.pipe()
    orphan = subprocess.Popen(
        ["sh", "-c", "read parent; exec env -i \"$@\" \"BARLOW_PARENT_PID=$parent\" sleep 60", "sh",
         f"{MARK}=numbered", f"{NODE}={node}"],
        stdin=read,
    )  # fmt: skip
    time.sleep(0.1)  # start times are counted in hundredths of a second
    later = _start(tmp_path, PATIENT)
    os.write(write, f"{later.pids[0]}\n".encode())
    _wait(lambda: marked("numbered") == [orphan.pid])
    assert end_orphans(node) == [orphan.pid]
    assert not _alive(orphan.pid)
    assert later.statuses() == [None]
    later.close()
    orphan.wait()
    os.close(read)
    os.close(write)


def test_tail_cuts_to_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_tail(log, 3) == []
    log.write_text("".join(f"line {i}\n" for i in range(10_000)))
    assert log_tail(log, 3) == ["line 9997", "line 9998", "line 9999"]


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
