"""The folder of a stack is its owner's alone."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from rights import NOBODY, OTHER, needs_root

from service.local.folder import STATE, make_private, read_state, write_private


def test_what_no_data_hang_on_is_kept_from_no_former_start(tmp_path: Path) -> None:
    write_private(tmp_path / STATE, {"database_password": "d", "redis_password": "r", "mlflow_token": "m"})
    state = read_state(tmp_path)
    assert state["database_password"] == "d"
    assert {"redis_password", "mlflow_token"}.isdisjoint(state)


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_the_folder_of_another_account_is_refused(tmp_path: Path, mode: int) -> None:
    """Who owns it could put another file or a link in the place of each of ours, whatever its mode is."""
    folder = tmp_path / "lab"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    folder.chmod(mode)
    with pytest.raises(ValueError, match=f"belongs to another account \\(user id {NOBODY}\\).*chown 0 {folder}"):
        make_private(folder, print)
    assert folder.stat().st_mode & 0o7777 == mode


def _said(folder: Path) -> list[str]:
    said: list[str] = []
    make_private(folder, said.append)
    return said


def test_a_folder_above_it_in_which_others_write_is_told_with_the_remedy(tmp_path: Path) -> None:
    """They could rename the whole directory and put another in its place."""
    project = tmp_path / "project"
    (project / "mine").mkdir(parents=True)
    project.chmod(0o777)
    for folder in (project / "lab", project / "mine" / "lab"):
        (said,) = _said(folder)
        assert said.startswith(f"Warning: other accounts may write in {project} ")
        assert f"`chmod go-w {project}`" in said
    (tmp_path / "link").symlink_to(project / "mine")
    assert len(_said(tmp_path / "link" / "lab")) == 1
    project.chmod(0o1777)
    assert _said(project / "lab") == [], "as in /tmp nobody renames it"
    project.chmod(0o755)
    assert _said(project / "lab") == []


@needs_root
def test_a_group_that_writes_above_it_is_told_unless_it_is_the_accounts_own(tmp_path: Path) -> None:
    """A umask of 002 is common where every account has a group of its own."""
    project = tmp_path / "project"
    project.mkdir()
    project.chmod(0o775)
    assert _said(project / "lab") == []
    os.chown(project, 0, OTHER)
    (said,) = _said(project / "lab")
    assert f"`chmod go-w {project}`" in said


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """Of (tag, rights, number): 1, 4, 0x10 and 0x20 are the owner, the group, the mask and others."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@needs_root
@pytest.mark.parametrize(("rights", "told"), [(7, True), (5, False)])
@pytest.mark.parametrize("tag", [2, 8], ids=["an account", "a group"])
def test_an_access_control_list_above_it_that_lets_others_write_is_told(
    tmp_path: Path, tag: int, rights: int, told: bool
) -> None:
    """What seem to be the rights of the group are those of all who are named."""
    project, nobody = tmp_path / "project", (1 << 32) - 1
    project.mkdir()
    entries = [(1, 7, nobody), (4, 7, nobody), (tag, rights, OTHER), (0x10, 7, nobody), (0x20, 0, nobody)]
    try:
        os.setxattr(project, "system.posix_acl_access", _acl(*sorted(entries)))
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    assert project.stat().st_mode & 0o777 == 0o770
    said = _said(project / "lab")
    assert bool(said) is told
    if told:
        assert f"`chmod go-w {project}`" in said[0]
        project.chmod(0o750)
        assert _said(project / "lab") == [], "the remedy is one"


@needs_root
def test_a_link_of_another_account_on_the_way_is_told(tmp_path: Path) -> None:
    """In /tmp it could make its link lead elsewhere at any time."""
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "theirs").symlink_to("mine")
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    os.chown(tmp_path / "theirs", OTHER, OTHER, follow_symlinks=False)
    for way in (tmp_path / "theirs", tmp_path / "theirs" / "lab", tmp_path / "ours" / "lab"):
        (said,) = _said(way)
        assert said.startswith(f"Warning: {tmp_path / 'theirs'} belongs to another account (user id {OTHER})")


@needs_root
def test_a_folder_above_it_that_is_another_accounts_is_told(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    os.chown(project, OTHER, OTHER)
    for mode in (0o755, 0o1777):
        project.chmod(mode)
        (said,) = _said(project / "lab")
        assert said.startswith(f"Warning: {project} belongs to another account (user id {OTHER})")


def test_folders_that_are_made_on_the_way_are_closed_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert _said(tmp_path / "a" / "b" / "lab") == []
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.rglob("*"))] == [0o700] * 3


@pytest.mark.parametrize("name", ["a\nb", "a\r", "\ta", "\x1b[2Ja", "a\x85b", "a\nb/lab"])
def test_a_name_with_a_control_character_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    """PostgreSQL refuses a line feed in words of its own, and lines of logs would end in the others."""
    with pytest.raises(ValueError, match=r"has a control character in it.*choose another --data") as caught:
        make_private(tmp_path / name, print)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []
