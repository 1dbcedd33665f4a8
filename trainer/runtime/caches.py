"""Where libraries keep what they compile and remember: in a folder that only this account can write.

What is found there is loaded and run. Left to themselves, torch and matplotlib take /tmp/torchinductor_USER and such
names that another account of the host can guess and make first.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import sys
from pathlib import Path

from barlow_lab import private_folders
from barlow_lab.environment import CACHE_DIR
from trainer import temporary

FOLDERS = {"TORCHINDUCTOR_CACHE_DIR": "torchinductor", "TRITON_CACHE_DIR": "triton", "MPLCONFIGDIR": "matplotlib"}
"""Variables that say where; what is set stays as it is."""

_made: list[Path] = []


def keep_private(run_folder: Path) -> None:
    """Set what of FOLDERS is not set to places below BARLOW_CACHE_DIR, else ~/.cache/barlow-lab.

    Where that cannot be made, or somebody else could write in it or exchange it, the folder `cache` of the run
    directory is taken, else one that is made for this process.
    """
    missing = {variable: name for variable, name in FOLDERS.items() if not os.environ.get(variable)}
    if not missing:
        return
    wanted = _wanted()
    try:
        folder = _private(wanted)
    except OSError as error:
        folder = _instead(run_folder / "cache")
        print(f"{wanted} is no private cache ({error}): {folder} is; {CACHE_DIR} may name another", file=sys.stderr)
    os.environ.update({variable: str(folder / name) for variable, name in missing.items()})


def remove_made() -> None:
    """Remove what was made for this process alone, if anything was."""
    for folder in _made:
        shutil.rmtree(folder, ignore_errors=True)


def _wanted() -> Path:
    if given := os.environ.get(CACHE_DIR):
        return Path(given).absolute()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home).absolute() / "barlow-lab"


def _private(folder: Path) -> Path:
    """The folder, made if it is not there, with mode 700.

    Raises:
        OSError: it cannot be made, or another account could put something else in its place.
    """
    private_folders.make(folder)
    if above := private_folders.open_above(folder):
        raise PermissionError(f"others can write in {above}")
    if above := private_folders.of_another(folder):
        raise PermissionError(f"{above} belongs to somebody else")
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError("it belongs to somebody else")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def _instead(folder: Path) -> Path:
    try:
        # The umask decides, as of every run directory: the cache alone is closed, and colleagues may read the results.
        folder.parent.mkdir(parents=True, exist_ok=True)
        return _private(folder)
    except OSError:
        made = temporary.make("barlow-cache-")
        _made.append(made)
        atexit.register(remove_made)  # where `end_process` is not what ends this process
        return made
