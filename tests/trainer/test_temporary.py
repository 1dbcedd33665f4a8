"""What a killed process has left in the temporary directory is removed by the next one, and nothing else is."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rights import OTHER

from trainer import temporary

MAKE = "import sys; from trainer import temporary; print(temporary.make('barlow-x-'), flush=True); sys.stdin.read()"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory, of this process and what it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def _made_by(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    made = Path(process.stdout.readline().rstrip("\n"))
    (made / "deep").mkdir()
    (made / "deep" / "file").touch()
    return made


def test_what_a_killed_process_has_left_goes_with_the_next_and_nothing_else_does(folder: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, alive = map(_made_by, started)
        assert stat.S_IMODE(alive.stat().st_mode) == 0o700
        started[0].kill()
        started[0].wait()
        begun, file, link, elsewhere = (folder / name for name in ("barlow-x-1", "barlow-x-2", "barlow-x-3", "mine"))
        begun.mkdir()
        file.touch()
        elsewhere.mkdir()
        (elsewhere / temporary.LOCK).touch()
        link.symlink_to(elsewhere)
        stay = {alive, begun, file, link, elsewhere}
        if os.geteuid() == 0:
            others = folder / "barlow-x-4"
            others.mkdir()
            (others / temporary.LOCK).touch()
            os.chown(others, OTHER, OTHER)
            stay.add(others)
        assert killed.exists()
        made = temporary.make("barlow-x-")
        assert {*folder.iterdir()} == {*stay, made}
        assert (alive / "deep" / "file").exists()
        assert (elsewhere / temporary.LOCK).exists()
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_where_nothing_can_be_locked_there_is_a_folder_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    first = temporary.make("barlow-x-")
    assert temporary.make("barlow-x-") != first
    assert first.is_dir()
