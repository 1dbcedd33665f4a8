"""A umask that takes the owner's own rights is none that a program of ours works by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.mark.parametrize("umask", [0o777, 0o277, 0o477, 0o700, 0o027])
def test_what_a_command_writes_its_owner_can_read(tmp_path: Path, umask: int) -> None:
    code = "from barlow_lab.commands import run_command; import os; run_command('x', lambda: os.mkdir('new'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, umask=umask, check=False)
    assert done.returncode == 0
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~umask | 0o700


@pytest.mark.parametrize("module", ["service.api", "service.tracking", "service.scheduling", "worker"])
def test_servers_begin_with_it(module: str) -> None:
    code = (
        "import os, runpy, sys; from barlow_lab import commands; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "finally: print(oct(os.umask(0)))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BARLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", code, module], env=environment, umask=0o777, capture_output=True, text=True, check=False
    )
    assert "BARLOW_" in done.stderr, "it had no settings"
    assert done.stdout.split()[-1] == "0o77"
