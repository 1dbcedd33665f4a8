"""Ranks as processes: real children, real signals. The child scripts stand for any program that a rank may run."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from rights import without_rights

from service import marks
from service.completion import log_tail
from worker.process import Ranks, devices_in_use, end_marked, end_orphans, is_gone, mark_for, marked

REPOSITORY = Path(__file__).parents[2]
PATIENT = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


NODE = f"test-{os.getpid()}"
LIVING, ORPHAN = uuid.uuid4(), uuid.uuid4()


def _start(tmp_path: Path, script: str, ranks: int = 1, attempt: uuid.UUID = LIVING) -> Ranks:
    environments = [{**os.environ, "RANK": str(rank)} for rank in range(ranks)]
    return Ranks([sys.executable, "-c", script], environments, tmp_path / "trainer.log", mark_for(attempt, NODE))


def _worker_that_dies(script: str, attempt: uuid.UUID = ORPHAN) -> None:
    """A worker that starts one rank and is killed; the rank does not ask for death with its parent."""
    worker = (
        "import os, pathlib, signal, sys, uuid\n"
        "from worker.process import Ranks, mark_for\n"
        f"mark = mark_for(uuid.UUID({str(attempt)!r}), {NODE!r})\n"
        f"Ranks([sys.executable, '-c', {script!r}], [dict(os.environ)], pathlib.Path(os.devnull), mark)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", worker], check=False).returncode == -signal.SIGKILL


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


def test_a_line_of_a_rank_is_one_line_and_drives_no_terminal(tmp_path: Path) -> None:
    odd = b"a\\r[1] forged \x1b[2J \xc2\x85 \xe2\x80\xa8 \xe2\x80\xae \xff \xce\xbb\\tend\r\n".replace(b"\\r", b"\r")
    ranks = _start(tmp_path, f"import os; os.write(1, {odd!r})")
    _wait(lambda: None not in ranks.statuses())
    ranks.close()
    said = "[0] a\\r[1] forged \\x1b[2J \\x85 \\u2028 \\u202e \\xff λ\\tend\n"
    assert (tmp_path / "trainer.log").read_text() == said


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
        Ranks([str(tmp_path / "nothing")], [dict(os.environ)], tmp_path / "log", mark_for(LIVING, NODE))


def test_orphans_of_a_dead_worker_are_ended_and_ranks_of_a_living_one_are_not(tmp_path: Path) -> None:
    mine = _start(tmp_path, PATIENT)
    _worker_that_dies("import time; time.sleep(60)")
    (orphan,) = marked(ORPHAN)
    assert end_orphans("another-node") == []
    assert not is_gone(ORPHAN)
    assert end_orphans(NODE) == [orphan]
    assert is_gone(ORPHAN)
    assert not _alive(orphan)
    assert mine.statuses() == [None]
    assert marked(LIVING) == mine.pids
    mine.close()
    assert is_gone(LIVING)


HELPED = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
    "time.sleep(60)\n"
)
"""A rank whose helper left its session."""


def test_a_helper_that_left_the_session_of_its_rank_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    helped = uuid.uuid4()
    other = _start(tmp_path, PATIENT)
    ranks = _start(tmp_path, HELPED, attempt=helped)
    _wait(lambda: len(marked(helped)) == 2)
    held = {"GPU-a": helped, "GPU-b": LIVING, "GPU-c": None, "GPU-d": uuid.uuid4()}
    assert devices_in_use(NODE, held) == {"GPU-a", "GPU-b"}
    assert devices_in_use(NODE, held | {"GPU-a": None}) == set(held), "nobody knows where it is"
    assert devices_in_use("another-node", held) == set()
    (helper,) = set(marked(helped)) - set(ranks.pids)
    assert ranks.close() == [-9]
    assert _alive(helper)
    assert end_marked(helped)
    assert not _alive(helper)
    assert end_marked(helped), "nothing to do is done"
    assert devices_in_use(NODE, held) == {"GPU-b"}
    assert other.statuses() == [None]
    other.close()


HIDDEN = (
    "import subprocess, sys\n"
    "hide = 'from barlow_lab import kernel; kernel.hide(); import time; time.sleep(60)'\n"
    "subprocess.Popen([sys.executable, '-c', hide], env={'PYTHONPATH': sys.argv[1]}, start_new_session=True)\n"
)
"""A rank that leaves one behind without its environment, its session and its descriptors, and with a hidden memory."""


def test_an_account_without_rights_ends_what_a_hidden_orphan_has_started(tmp_path: Path) -> None:
    """As a worker in a container does. What may read the environment of such a process is root alone."""
    script = (
        "import os, psutil, sys, time, uuid\n"
        "sys.path.insert(0, 'tests/worker')\n"
        "from test_process import HIDDEN, NODE, ORPHAN, _worker_that_dies, _wait\n"
        "from worker.process import end_orphans, is_gone, marked\n"
        "attempt = uuid.uuid4()\n"
        "_worker_that_dies(f'import sys; sys.argv.append({os.getcwd()!r})\\n' + HIDDEN, attempt)\n"
        "def hidden():\n"
        "    found = [psutil.Process(pid) for pid in marked(attempt)]\n"
        "    hides = [os.stat(f'/proc/{one.pid}/environ').st_uid == 0 != os.getuid() for one in found]\n"
        "    return hides == [True] and bool(found[0].cmdline())\n"  # what ends shows none, and is root's, too
        "_wait(hidden)\n"
        "(left,) = marked(attempt)\n"
        "try:\n"
        "    open(f'/proc/{left}/environ', 'rb').read()\n"
        "    sys.exit('it can be read')\n"
        "except PermissionError:\n"
        "    pass\n"
        "assert not is_gone(attempt)\n"
        "assert end_orphans(NODE) == [left]\n"
        "assert is_gone(attempt)\n"
    )
    done = subprocess.run(
        [*without_rights(), sys.executable, "-c", script],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests/support"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_where_a_process_cannot_be_looked_at_no_attempt_counts_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed = _start(tmp_path, PATIENT)
    read = marks._read

    def as_the_kernel_may(pid: int, place: marks.ResourceLimit) -> marks.Mark | None:
        if pid in closed.pids:
            raise PermissionError(13, "Permission denied")
        return read(pid, place)

    gone = uuid.uuid4()
    assert is_gone(gone)
    monkeypatch.setattr(marks, "_read", as_the_kernel_may)
    assert not is_gone(gone)
    assert not end_marked(gone)
    assert devices_in_use(NODE, {"GPU-a": None}) == {"GPU-a"}
    assert f"cannot be looked at may belong to an attempt: {closed.pids}" in caplog.text
    closed.close()
    assert end_marked(gone)


def test_orphans_are_ended_with_what_they_started(tmp_path: Path) -> None:
    _worker_that_dies(HELPED)
    _wait(lambda: len(marked(ORPHAN)) == 2)
    orphans = marked(ORPHAN)
    assert end_orphans(NODE) == sorted(orphans)
    assert not any(_alive(pid) for pid in orphans)


def test_a_later_process_of_a_dead_worker_s_number_is_no_parent_of_its_orphans(tmp_path: Path) -> None:
    orphan = subprocess.Popen(["sleep", "60"])
    born = psutil.Process(orphan.pid).create_time()
    later = _start(tmp_path, PATIENT)
    while psutil.Process(later.pids[0]).create_time() <= born:  # counted in hundredths of a second
        later.close()
        later = _start(tmp_path, PATIENT)
    mine = mark_for(ORPHAN, NODE)
    marks.mark(orphan.pid, marks.ATTEMPT, marks.Mark(mine.name, mine.detail - os.getpid() + later.pids[0]))
    assert end_orphans(NODE) == [orphan.pid]
    orphan.wait()
    assert later.statuses() == [None]
    later.close()


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
