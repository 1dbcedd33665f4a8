"""`--ranks N`: real processes. Where the matter is the launcher's, small scripts stand for what a rank may do."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil
import pytest
import ranks
import runs
from fifty_steps import SPEC, wait_for

from trainer import launching

LAUNCHER = (
    "import sys; from trainer import launching; launching.PEER_SECONDS = float(sys.argv[2])\n"
    "sys.exit(launching.launch([sys.executable, '-c', sys.argv[1]], 2))"
)
PAGE = 4096
LISTENING = """
import os, psutil
from trainer.runtime import process_group
process_group.join()
heard = psutil.Process().net_connections('inet')
print('listens at', *{each.laddr.ip for each in heard if each.status == psutil.CONN_LISTEN})
process_group.leave()
"""


def _launcher(
    script: str, *, before: tuple[str, ...] = (), peer_seconds: float = 60.0, **environment: str
) -> subprocess.Popen[str]:
    """A launcher of two ranks that run `script`."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", LAUNCHER, script, str(peer_seconds)], env=ranks.environment(**environment),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip


def _end(launcher: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    try:
        out, err = launcher.communicate(timeout=120)
        return launcher.returncode, out, err
    finally:
        launcher.kill()


def _drop(launcher: subprocess.Popen[str]) -> None:
    """End it with what it still has to say unread."""
    launcher.kill()
    launcher.wait()
    for pipe in (launcher.stdout, launcher.stderr):
        assert pipe is not None
        pipe.close()


def _said(launcher: subprocess.Popen[str], *lines: str) -> None:
    """Wait until these lines were printed, in whatever order."""
    assert launcher.stdout is not None
    left = set(lines)
    while left:
        line = launcher.stdout.readline()
        assert line, f"it never said {left}"
        left.discard(line.rstrip("\n"))


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_rank_is_told_its_place_and_a_private_file_to_meet_at():
    script = (
        "import json, os, pathlib; meeting = pathlib.Path(os.environ['BARLOW_RENDEZVOUS_FILE'])\n"
        "stat = meeting.parent.stat(); print(json.dumps({'mode': stat.st_mode & 0o777, 'uid': stat.st_uid, "
        "'session': os.getsid(0) == os.getpid(), 'parent': os.getppid(), 'place': dict(os.environ)}))"
    )
    launcher = _launcher(script, WORLD_SIZE="7", BARLOW_RENDEZVOUS_FILE="/nonexistent", BARLOW_PARENT_PID="1")
    status, out, err = _end(launcher)
    assert (status, err) == (0, "")
    told = {int(line[1]): json.loads(line[4:]) for line in out.splitlines()}
    for rank in range(2):
        place = told[rank]["place"]
        assert (place["RANK"], place["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (place["WORLD_SIZE"], place["LOCAL_WORLD_SIZE"]) == ("2", "2")
        assert int(place["BARLOW_PARENT_PID"]) == told[rank]["parent"] == launcher.pid
        assert (told[rank]["mode"], told[rank]["uid"], told[rank]["session"]) == (0o700, os.getuid(), True)
        assert place["PYTHONPATH"] == ranks.environment()["PYTHONPATH"], "it leads to the launcher's code as it is"
    (meeting,) = {told[rank]["place"]["BARLOW_RENDEZVOUS_FILE"] for rank in range(2)}
    assert not Path(meeting).parent.exists()


def test_lines_go_on_to_the_same_stream_whole_with_their_rank_and_drive_no_terminal():
    script = (
        "import os, sys\n"
        "for i in range(300): print(i, 'λ')\n"
        "os.write(2, b'a\\r[1] forged \\x1b[2J \\xff\\tend'); sys.exit(int(os.environ['RANK']))"
    )
    status, out, err = _end(_launcher(script))
    assert status == 1
    assert sorted(err.splitlines()) == [rf"[{rank}] a\r[1] forged \x1b[2J \xff" + "\tend" for rank in range(2)]
    for rank in range(2):
        lines = [line for line in out.splitlines() if line.startswith(f"[{rank}] ")]
        assert lines == [f"[{rank}] {i} λ" for i in range(300)]


def test_ranks_go_on_when_nobody_reads_their_output(tmp_path):
    script = f"import os; print('x' * 3_000_000); open({str(tmp_path)!r} + '/' + os.environ['RANK'], 'w')"
    launcher = _launcher(script)
    assert launcher.stdout is not None
    launcher.stdout.close()
    try:
        assert launcher.wait(timeout=120) == 0
    finally:
        _drop(launcher)
    assert sorted(os.listdir(tmp_path)) == ["0", "1"]


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_is_handed_on_once_and_waits_for_a_rank_that_begins(asked, suspended):
    """Also after Ctrl-Z and fg: the ranks of a launcher that was suspended for longer than it looks away run on."""
    script = (
        "import signal, time; from trainer.runtime import signals; print('begins', flush=True)\n"
        "while not signal.sigpending(): time.sleep(0.02)\n"
        "signals.hear_stop(); print('heard', signals.stop_heard(), flush=True)"
    )
    launcher = _launcher(script)
    _said(launcher, "[0] begins", "[1] begins")
    for _ in range(3 if suspended else 0):
        launcher.send_signal(signal.SIGSTOP)
        _wait_until(lambda: psutil.Process(launcher.pid).status() == psutil.STATUS_STOPPED)
        time.sleep(2 * launching.LOOK_SECONDS)
        launcher.send_signal(signal.SIGCONT)
        time.sleep(2 * launching.LOOK_SECONDS)
    launcher.send_signal(asked)
    status, out, err = _end(launcher)
    assert (status, sorted(out.splitlines()), err) == (0, ["[0] heard True", "[1] heard True"], "")


def test_under_nohup_the_end_of_the_terminal_stops_nothing(tmp_path):
    script = (
        "import pathlib, time; from trainer.runtime import signals; signals.hear_stop(); print('ready', flush=True)\n"
        f"while not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.02)\n"
        "print('heard', signals.stop_heard())"
    )
    launcher = _launcher(script, before=("nohup",))
    _said(launcher, "[0] ready", "[1] ready")
    launcher.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    status, out, _ = _end(launcher)
    assert (status, sorted(out.splitlines())) == (0, ["[0] heard False", "[1] heard False"])


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("sys.exit(3)", ""),
        ("os.kill(os.getpid(), 9)", "rank 1 was ended by SIGKILL, by hand or by the kernel for want of memory"),
    ],
)
def test_the_first_rank_that_fails_ends_the_others(failure, said):
    script = f"import os, sys, time\nif os.environ['RANK'] == '1': {failure}\ntime.sleep(600)"
    status, _, err = _end(_launcher(script, peer_seconds=0.2))
    assert status == 1
    assert said in err
    assert "killed rank 0: still there 0.2 s after another one had failed" in err


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_after_a_request_to_stop_ends_ranks_that_do_not_end(first):
    script = (
        "import os, signal, time; from trainer.runtime import signals\n"
        "for number in signals.STOPS: signal.signal(number, lambda *_: os.write(1, b'interrupted\\n'))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOPS); print('ready', flush=True)\n"
        "while True: time.sleep(1)"
    )
    launcher = _launcher(script, peer_seconds=0.2)
    _said(launcher, "[0] ready", "[1] ready")
    launcher.send_signal(first)
    _said(launcher, "[0] interrupted", "[1] interrupted")
    launcher.send_signal(signal.SIGINT)
    status, _, err = _end(launcher)
    why = "still there 0.2 s after an interrupt after the request to stop"
    assert (status, err) == (1, f"barlow-train: killed rank 0, 1: {why}\n")


def _narrow(pipe: IO[str] | None) -> int:
    """A pipe that is full with a page."""
    assert pipe is not None
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PAGE)
    return pipe.fileno()


def _is_full(pipe: int) -> bool:
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0] == PAGE


@pytest.mark.parametrize("how", ["a second interrupt", "a rank that died"])
def test_a_reader_that_takes_nothing_keeps_no_rank_alive(tmp_path, how):
    """As after Ctrl-S, or behind `less`."""
    script = (
        "import os, pathlib, signal, sys, threading, time\n"
        "signal.signal(signal.SIGINT, lambda *_: os.write(1, b'interrupted\\n'))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT]); print('ready', flush=True)\n"
        f"while not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.02)\n"
        "threading.Thread(target=lambda: os.write(2, b'x' * 10_000_000), daemon=True).start()\n"
        "while True: time.sleep(1)"
    )
    launcher = _launcher(script, peer_seconds=0.2)
    try:
        errors = _narrow(launcher.stderr)
        _said(launcher, "[0] ready", "[1] ready")
        (tmp_path / "go").touch()
        _wait_until(lambda: _is_full(errors))
        if how == "a second interrupt":
            launcher.send_signal(signal.SIGINT)
            _said(launcher, "[0] interrupted", "[1] interrupted")
            launcher.send_signal(signal.SIGINT)
        else:
            psutil.Process(launcher.pid).children()[0].kill()
        assert launcher.wait(60) == 1
    finally:
        _drop(launcher)


@pytest.mark.parametrize("how", ["reads", "interrupts"])
def test_the_last_lines_of_a_done_run_wait_for_a_slow_reader_until_an_interrupt(how):
    launcher = _launcher("import os\nif os.environ['RANK'] == '0': print('x' * 60_000)")
    try:
        out = _narrow(launcher.stdout)
        _wait_until(lambda: _is_full(out))
        _wait_until(lambda: not psutil.Process(launcher.pid).children())
        if how == "reads":
            with pytest.raises(subprocess.TimeoutExpired):
                launcher.wait(2 * launching.JOIN_SECONDS)
            assert _end(launcher) == (0, f"[0] {'x' * 60_000}\n", "")
        else:
            launcher.send_signal(signal.SIGINT)
            assert launcher.wait(60) == 0
    finally:
        _drop(launcher)


def test_what_a_rank_leaves_in_its_session_ends_with_it():
    script = (
        "import subprocess, sys; child = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "print(subprocess.Popen(child).pid)"
    )
    status, out, _ = _end(_launcher(script))
    assert status == 0
    for line in out.splitlines():
        _wait_until(lambda pid=int(line.split()[-1]): not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _by_hand(folder: Path, **environment: str) -> tuple[Path, subprocess.Popen[bytes]]:
    """A long run on two ranks; what it prints goes to `folder`/log."""
    (folder / "spec.json").write_text(json.dumps({**SPEC.resolved(), "epochs": 10_000}))
    command = [sys.executable, "-m", "trainer", str(folder / "spec.json"), "--run-dir", str(folder / "run")]
    with (folder / "log").open("ab") as log:
        started = subprocess.Popen(
            [*command, "--ranks", "2"], env=ranks.environment(**environment), stdout=log, stderr=log
        )
    return folder / "run", started


def test_a_run_listens_on_loopback_alone_and_told_to_stop_writes_a_checkpoint(tmp_path):
    run, launcher = _by_hand(tmp_path, GLOO_SOCKET_IFNAME="nowhere0", NCCL_SOCKET_IFNAME="nowhere0")
    wait_for(run, "metrics", 2)
    every = [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children()]
    assert len(every) == 3
    heard = [each for process in every for each in process.net_connections("inet")]
    assert {each.laddr.ip for each in heard if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    launcher.send_signal(signal.SIGTERM)
    said = tmp_path / "log"
    assert launcher.wait(120) == 0, said.read_text()
    assert runs.outcome_of(run)["outcome"] == "stopped", said.read_text()
    assert list((run / "attempts/0001/checkpoints").glob("step-*"))
    assert re.search(r"^\[0\] stopped: stopped at step \d+: signal$", said.read_text(), re.MULTILINE)


def test_a_killed_launcher_leaves_no_orphan_and_the_next_removes_its_folder(tmp_path):
    """Also while torch is loaded."""
    _, launcher = _by_hand(tmp_path, TMPDIR=str(tmp_path))
    _wait_until(lambda: len(list(tmp_path.glob("barlow-train-*/rendezvous.rank-*"))) == 2)
    left = psutil.Process(launcher.pid).children()
    assert len(left) == 2
    launcher.kill()
    launcher.wait()
    _wait_until(lambda: not any(_runs(process.pid) for process in left))
    assert _end(_launcher("", TMPDIR=str(tmp_path)))[0] == 0
    assert list(tmp_path.glob("barlow-train-*")) == []


ELSEWHERE = """
ip link set lo up && ip address add 192.0.2.2/32 dev lo && hostname elsewhere &&
echo 192.0.2.2 elsewhere >"$1/hosts" && mount --bind "$1/hosts" /etc/hosts && shift && exec "$@"
"""


def test_ranks_listen_on_loopback_alone_where_the_host_s_name_is_another_address(tmp_path):
    """In a network and with a name of its own; it takes no rights where users may have their namespaces."""
    room = ["unshare", "--map-root-user", "--net", "--mount", "--uts", "sh", "-c", ELSEWHERE, "sh", str(tmp_path)]
    tried = subprocess.run([*room, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"no namespaces here: {tried.stderr}")
    status, out, err = _end(_launcher(LISTENING, before=tuple(room)))
    assert (status, sorted(out.splitlines())) == (0, [f"[{rank}] listens at 127.0.0.1" for rank in range(2)]), err
