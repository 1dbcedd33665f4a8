"""Compile caches in a folder that nobody else can write."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.runtime.caches import FOLDERS, keep_private

REPOSITORY = Path(__file__).parents[3]
OTHER = 54321
"""An account that is not ours."""


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


@pytest.mark.parametrize("how", ["a link", "open above", "open two above", "a file"])
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
    elif how == "open two above":
        home.chmod(0o777)
        monkeypatch.setenv("BARLOW_CACHE_DIR", str(above / "cache"))
        home = above.parent.parent
    else:
        (above / "barlow-lab").touch()
    keep_private(home / "run")
    assert _folders() == {home / "run" / "cache"}
    assert _mode(home / "run" / "cache") == 0o700
    assert "is no private cache" in capsys.readouterr().err


@pytest.mark.parametrize("refused", [False, True])
def test_a_run_folder_and_what_is_above_it_have_the_mode_that_the_umask_gives(home: Path, refused: bool) -> None:
    (home / ".cache").touch()
    if refused:
        home.chmod(0o777)
    umask = os.umask(0o022)
    try:
        keep_private(home / "runs" / "run")
    finally:
        os.umask(umask)
    assert (_folders() == {home / "runs" / "run" / "cache"}) is not refused
    assert [_mode(home / "runs"), _mode(home / "runs" / "run")] == [0o755, 0o755]


def _of_another_account(cache: Path) -> None:
    cache.mkdir()
    os.chown(cache, OTHER, OTHER)


def _link(cache: Path) -> None:
    (cache.parent / "theirs").mkdir()
    cache.symlink_to(cache.parent / "theirs")


def _open_above(cache: Path) -> None:
    cache.parent.chmod(0o777)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another account")
@pytest.mark.parametrize("spoil", [_of_another_account, _link, _open_above])
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("from trainer.runtime.rank_exit import end_process; end_process(0)", 0),
        ("from trainer.runtime import watchdog; watchdog.end('a lost lease')", 1),
        ("sys.exit(0)", 0),
    ],
)
def test_nor_is_the_run_folders_one_and_then_it_is_made_anew_and_removed_at_the_end(
    home: Path, spoil: Callable[[Path], None], end: str, status: int
) -> None:
    run = home / "run"
    run.mkdir()
    spoil(run / "cache")
    (home / ".cache").touch()
    script = (
        "import os, sys, pathlib; from trainer.runtime.caches import keep_private\n"
        "keep_private(pathlib.Path(sys.argv[1]))\n"
        "folder = pathlib.Path(os.environ['TRITON_CACHE_DIR']).parent\n"
        "facts = folder.stat(); print(folder, oct(facts.st_mode), facts.st_uid, flush=True)\n"
        f"(folder / 'torchinductor').mkdir(); (folder / 'torchinductor' / 'kernel.py').touch(); {end}"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(run)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(home)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    folder, *facts = done.stdout.split()
    assert facts == [oct(stat.S_IFDIR | 0o700), str(os.geteuid())]
    assert Path(folder).parent == home
    assert Path(folder).name.startswith("barlow-cache-")
    assert not Path(folder).exists()
    assert f"{folder} is; BARLOW_CACHE_DIR may name another" in done.stderr


def test_where_the_root_of_the_host_has_no_number_its_folders_are_taken_for_its_own(home: Path) -> None:
    """In a user namespace / and /home are shown as the account 65534's, as here the home where this is run by root."""
    script = "import os, pathlib; from trainer.runtime.caches import keep_private\nkeep_private(pathlib.Path('run'))"
    script += "\nprint(os.environ['TRITON_CACHE_DIR'])"
    command = ["unshare", "--map-root-user", sys.executable, "-P", "-c", script]
    tried = subprocess.run([*command[:2], "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"no namespaces here: {tried.stderr}")
    cache = home / "of-root" / "mine"
    cache.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(cache.parent, OTHER, OTHER)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "BARLOW_CACHE_DIR": str(cache), "TMPDIR": str(home)}
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{cache / 'triton'}\n", "")
