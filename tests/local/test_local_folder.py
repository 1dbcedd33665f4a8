"""The folder of a stack is its owner's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.local.folder import make_private

NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another account")
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
