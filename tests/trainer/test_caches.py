"""Compile caches in a folder that nobody else can write."""

import os
import stat
from pathlib import Path

import pytest

from trainer.runtime.caches import FOLDERS, keep_private


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in (*FOLDERS, "BARLOW_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, "")
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    monkeypatch.setenv("HOME", str(home))
    return home


def _mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def _folders() -> set[Path]:
    return {Path(os.environ[variable]).parent for variable in FOLDERS}


def test_by_hand_they_lie_in_the_home_closed_to_others(home: Path) -> None:
    open_one = home / ".cache" / "barlow-lab"
    open_one.mkdir(parents=True)
    open_one.chmod(0o777)
    keep_private(home / "run")
    assert _folders() == {open_one}
    assert _mode(open_one) == 0o700
    assert not (home / "run").exists()


def test_what_is_set_stays_and_a_worker_says_where_the_rest_goes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    monkeypatch.setenv("BARLOW_CACHE_DIR", str(home / "stack" / "cache"))
    keep_private(home / "run")
    assert os.environ["TRITON_CACHE_DIR"] == "/elsewhere"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(home / "stack" / "cache" / "torchinductor")
    assert _mode(home / "stack" / "cache") == 0o700


@pytest.mark.parametrize("how", ["a link", "open above", "a file"])
def test_a_place_that_others_can_change_is_not_taken(
    home: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    above = home / ".cache"
    above.mkdir()
    if how == "a link":
        (home / "theirs").mkdir()
        (above / "barlow-lab").symlink_to(home / "theirs")
    elif how == "open above":
        above.chmod(0o777)
    else:
        (above / "barlow-lab").touch()
    keep_private(home / "run")
    assert _folders() == {home / "run" / "cache"}
    assert _mode(home / "run" / "cache") == 0o700
    assert "is no private cache" in capsys.readouterr().err
