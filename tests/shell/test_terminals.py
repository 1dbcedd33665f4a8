"""Output that is not UTF-8 gets escapes; a reader that left, or a closed stream, is no failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from api_kit import PRETRAIN

from service.client.api import Client
from service.local import commands

BARLOW = Path(sys.executable).with_name("barlow")
NARROW = [
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]
"""Ways to a terminal without Cyrillic."""


@pytest.fixture(scope="module")
def job(server: str) -> str:
    """A job with a label that most terminals of the past lack."""
    with Client(server) as client:
        return str(client.submit_job({**PRETRAIN, "run": {"labels": {"note": "приёмка"}}}).id)


@pytest.mark.parametrize("narrow", NARROW, ids=lambda narrow: next(iter(narrow.values())))
def test_the_command_prints_escapes(server: str, job: str, narrow: dict[str, str]) -> None:
    environment = {**os.environ, **narrow}
    shown = subprocess.run(
        [BARLOW, "show", job, "--url", server], env=environment, capture_output=True, timeout=60, check=True
    )
    assert rb"\u043f\u0440\u0438\u0451\u043c\u043a\u0430" in shown.stdout
    refused = subprocess.run(
        [BARLOW, "show", "приёмка", "--url", server], env=environment, capture_output=True, timeout=60
    )
    assert refused.returncode == 1
    assert b"Traceback" not in refused.stderr


def test_a_spec_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("kind: pretrain\ndata: digits\nrun: {labels: {note: приёмка}}\n", "utf-8")
    environment = {**os.environ, **NARROW[1]}
    done = subprocess.run([BARLOW, "spec", spec], env=environment, capture_output=True, timeout=60, check=True)
    assert rb"\u043F\u0440".lower() in done.stdout.lower()


@pytest.mark.parametrize("streams", ["| head -n 1", ">&- 2>&-"])
def test_a_closed_stream_is_no_failure(server: str, job: str, streams: str) -> None:
    command = f"set -o pipefail; '{BARLOW}' show {job} --url {server} {streams}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["jobs", "--version"])
def test_output_that_is_not_taken_is_said_and_a_reader_that_left_is_not(
    server: str, arguments: str, unbuffered: str
) -> None:
    """A full disk; a pipe whose reader is gone before anything comes."""
    environment = {**os.environ, "BARLOW_URL": server, "PYTHONUNBUFFERED": unbuffered}
    command = [str(BARLOW), arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "barlow: write error: No space left on device\n")
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as left:
        done = subprocess.run(command, env=environment, stdout=left, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_trainers_command_says_it_too() -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # else argparse passes it over
    with open("/dev/full", "wb") as full:
        command = [BARLOW.with_name("barlow-train"), "--help"]
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "barlow-train: write error: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "status"), [(["spec", "/nonexistent"], 1), (["nonsense"], 1), (["--version"], 0)]
)
def test_an_error_that_is_not_taken_is_still_one(arguments: list[str], status: int) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    with open("/dev/full", "wb") as full:
        done = subprocess.run([BARLOW, *arguments], env=environment, stderr=full, stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == status


def test_lines_that_nobody_takes_keep_no_stack_from_being_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stdout", full)
        commands._line("stopping worker")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


CHECK = """
import os, subprocess, sys
from barlow_lab.standard_streams import ready_streams
ready_streams()
first = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
subprocess.run([sys.executable, "-c", "import os; os.write(1, b'x'); os.write(2, b'x'); os.read(0, 1)"], check=True)
print("x", file=sys.stderr)
os.write(first, b"%d" % first)
"""


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_stream_that_was_closed(tmp_path: Path, closed: str) -> None:
    """Neither here nor in what a program starts: a library would write its lines into it."""
    said = tmp_path / "said"
    command = ["bash", "-c", f'"$@" {closed}', "bash", sys.executable, "-c", CHECK, said]
    subprocess.run(command, check=True, timeout=60)
    assert int(said.read_text()) > 2


@pytest.mark.parametrize("streams", ["2>&1 | true", "<&- >&- 2>&-"])
def test_a_run_by_hand_goes_on_when_nobody_reads_it(tmp_path: Path, streams: str) -> None:
    spec = tmp_path / "спец.yaml"
    spec.write_text("{kind: knn, data: digits, images: {size: 16, resize: 16}, backbone_from: {pixels: true}}\n")
    trainer = f"'{sys.executable}' -P -m trainer '{spec}' --run-dir '{tmp_path / 'запуск'}'"
    command = f"{trainer} {streams}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, **NARROW[1]}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"ok"' in (tmp_path / "запуск" / "attempts" / "0001" / "outcome.json").read_text("utf-8")
