"""Commands as other accounts run them, wherever the checkout and its environment lie."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import marks
from service.local.process import _privileges

REPOSITORY = Path(__file__).parents[2]
NOBODY, OTHER = 65534, 54321
"""Whom `without_rights` becomes, and an account that is neither that nor root."""
WITHOUT_KILL = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill", "--"]
"""The beginning of a command as a root that may not signal other accounts, as of some containers."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="runs programs as other accounts")


def without_rights() -> list[str]:
    """The beginning of such a command; nothing where this account has none itself."""
    return _privileges(None, unprivileged=True)


def run_script(prefix: list[str], script: str) -> str:
    """Run Python code that imports the product, and has to come to its end; returns what it wrote to stderr."""
    done = subprocess.run(
        [*prefix, sys.executable, "-P", "-c", script],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@contextlib.contextmanager
def foreign_process(place: marks.Place, mark: marks.Mark, *, account: int = OTHER) -> Iterator[subprocess.Popen[bytes]]:
    """A process of another account with a mark, and a name that is no text, that it has given itself."""
    process = subprocess.Popen(
        ["sh", "-c", r"printf '\377) (' >/proc/$$/comm; echo; read line"],
        user=account, group=account, extra_groups=[], preexec_fn=lambda: marks.mark(0, place, mark),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()
