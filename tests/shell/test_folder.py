"""Nothing of the folder that a program is started in is run, whatever its modules are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import foreign_shell
import pytest

BIN = Path(sys.executable).parent
SPEC = "{kind: knn, data: digits, images: {size: 16, resize: 16}, backbone_from: {pixels: true}}\n"


def _run(folder: Path, *command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert "OF THE FOLDER IS RUN" not in said
    assert done.returncode == 0, said
    return said


def test_the_trainer_by_hand_and_its_ranks(tmp_path: Path) -> None:
    """The commands of docs/trainer.md, from a folder that has modules of all names."""
    folder = foreign_shell.make_folder(tmp_path / "theirs")
    (folder / "spec.yaml").write_text(SPEC)
    said = _run(folder, BIN / "barlow-train", "spec.yaml", "--run-dir", "runs", "--ranks", "2")
    assert "ok: knn: top1" in said
    assert '"ok"' in (folder / "runs/attempts/0001/outcome.json").read_text("utf-8")
    assert "usage: barlow-train" in _run(folder, BIN / "barlow-train", "--help")
    assert "usage: python -m trainer" in _run(folder, sys.executable, "-P", "-m", "trainer", "--help")


@pytest.mark.parametrize(("command", "own"), [("barlow-train", "trainer"), ("barlow", "service")])
@pytest.mark.parametrize("path", [":/nonexistent", "/nonexistent:", "/nonexistent::/nowhere:"])
def test_an_empty_part_of_pythonpath_names_no_folder(tmp_path: Path, command: str, own: str, path: str) -> None:
    """Shells make one of `PYTHONPATH=$PYTHONPATH:/opt/x`. What is imported before our first line is Python's to say."""
    folder = foreign_shell.make_folder(tmp_path / "theirs", without=(own,))
    assert "sage: barlow" in _run(folder, "env", "-u", "PYTHONSAFEPATH", f"PYTHONPATH={path}", BIN / command, "--help")


@pytest.mark.parametrize(
    "module",
    ["trainer", "trainer.survey", "trainer.data.trees", "service.api", "service.database", "service.command"],
)
def test_a_module_of_ours_by_its_name(tmp_path: Path, module: str) -> None:
    """`python -m` finds what it is asked for in the folder first; that apart, the folder has no say."""
    folder = foreign_shell.make_folder(tmp_path / "theirs", without=(module.partition(".")[0],))
    environment = {**os.environ, "BARLOW_DATABASE_URL": "postgresql://unused"}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout.lower()


@pytest.mark.parametrize(
    "command",
    [
        *("barlow jobs", "barlow spec spec.yaml", "barlow demo", "barlow-train s --run-dir r"),
        *("barlow up", "barlow up --data /nonexistent/lab", "barlow login", "barlow open", "barlow token list"),
    ],
)
def test_a_folder_that_is_gone_is_said(tmp_path: Path, command: str) -> None:
    """Whoever removed it in another terminal sees its name in the prompt still."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd '{gone}' && rmdir '{gone}' && exec '{BIN}/'{command}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 or not done.stderr, done.stderr
    assert "the folder that it is started in is not there any more; cd to one that is" in done.stdout + done.stderr
