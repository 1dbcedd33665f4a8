"""Commands as other accounts run them, wherever the checkout and its environment lie."""

from __future__ import annotations

import contextlib
import os
import socket
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


_THIEF = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
server = socket.create_server((sys.argv[3], int(sys.argv[2])))
print(server.getsockname()[1], flush=True)
while True:
    connection = server.accept()[0]
    print(ascii(connection.recv(10_000)), flush=True)
    connection.close()
"""


class Thief:
    """Another account that listens where a server of ours would."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line())

    def heard(self) -> set[str]:
        """What it was told so far: nothing by a connection that was closed at once."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"the last one")
        said = set()
        while "the last one" not in (line := self._line()):
            said.add(line)
        return said - {"b''"}

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def thief(port: int = 0, *, host: str = "127.0.0.1") -> Iterator[Thief]:
    """Another account that has taken a port of ours."""
    command = [sys.executable, "-c", _THIEF, str(OTHER), str(port), host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Thief(process)
        finally:
            process.kill()


@contextlib.contextmanager
def foreign_process(
    place: marks.ResourceLimit, mark: marks.Mark, *, account: int = OTHER
) -> Iterator[subprocess.Popen[bytes]]:
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
