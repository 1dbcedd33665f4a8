"""Paths of a run directory, and the backbone that is published in it."""

import ast
from pathlib import Path

import pytest

from barlow_lab import run_folder


def _export(attempt: Path, text: str) -> Path:
    exported = attempt / run_folder.BACKBONE
    exported.mkdir(parents=True)
    (exported / "config.json").write_text(text)
    return exported


def test_attempts_and_checkpoints_are_found_by_number_and_nothing_else(tmp_path: Path) -> None:
    first = run_folder.attempt_folder(tmp_path, 1)
    for name in ("step-00000003", ".step-00000004.tmp", ".step-00000002.deleted", "step-00000001.bad"):
        (first / run_folder.CHECKPOINTS / name).mkdir(parents=True)
    (tmp_path / "attempts/0002.bad").mkdir()
    assert run_folder.attempt_folders(tmp_path) == {1: first}
    assert run_folder.checkpoint_folders(tmp_path) == {(1, 3): first / "checkpoints/step-00000003"}


def test_a_backbone_is_published_once_and_makes_way_for_that_of_a_later_attempt(tmp_path: Path) -> None:
    for number, text in enumerate(("old", "new"), 1):
        attempt = run_folder.attempt_folder(tmp_path, number)
        exported = _export(attempt, text)
        for _ in range(2):
            run_folder.publish_backbone(tmp_path, exported)
            assert (tmp_path / "backbone/config.json").read_text() == text
            assert list(attempt.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempts", "backbone"]


def test_a_backbone_that_is_nowhere_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither exported nor published"):
        run_folder.publish_backbone(tmp_path, run_folder.attempt_folder(tmp_path, 1) / run_folder.BACKBONE)


def test_the_new_backbone_is_in_place_by_one_rename_however_it_is_cut_off(tmp_path: Path) -> None:
    """Killed before any step that cannot be undone, what is asked again ends with the new one."""
    _export(tmp_path, "old")
    exported = _export(run_folder.attempt_folder(tmp_path, 1), "new")

    def cut_off(at: int) -> None:
        ticks = iter(range(10))

        def tick() -> None:
            if next(ticks) == at:
                raise KeyboardInterrupt

        run_folder.publish_backbone(tmp_path, exported, tick)

    for at in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            cut_off(at)
        if at == 0:
            assert (tmp_path / "backbone/config.json").read_text() == "old"
    run_folder.publish_backbone(tmp_path, exported)
    assert (tmp_path / "backbone/config.json").read_text() == "new"


def test_a_name_in_a_run_directory_is_spelt_in_one_file() -> None:
    root = Path(run_folder.__file__).parents[1]
    names = {value for name, value in vars(run_folder).items() if name.isupper() and "." in str(value)}
    assert len(names) > 8
    spelt = {
        (str(path.relative_to(root)), node.value)
        for package in ("barlow_lab", "service", "trainer", "worker")
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert {path for path, _ in spelt} == {"barlow_lab/run_folder.py"}, sorted(spelt)
