"""A Linux that hides who listens at a port: nobody is taken for ours there."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from rights import needs_root, run_script

from service import loopback
from service.local.ports import HOST
from service.loopback import NotOurs, listeners, require_connected_to_ours, require_ours


@pytest.mark.parametrize("how", ["there is none", "it cannot be read"])
def test_nothing_is_sent_where_linux_hides_who_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / "tcp").mkdir()
    hidden = tmp_path / ("tcp" if how == "it cannot be read" else "none")
    monkeypatch.setattr(loopback, "_TABLES", (hidden, hidden))
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        words = (
            f"who listens at port {port} of {HOST} cannot be told, and nothing secret is sent there: {hidden}.*/proc"
        )
        with socket.create_connection((HOST, port)) as connection, pytest.raises(NotOurs, match=words):
            require_connected_to_ours(connection)
        with pytest.raises(NotOurs, match=words):
            require_ours(HOST, port)
        assert listeners(port) is None
        monkeypatch.setattr(loopback, "_LINUX", False)
        require_ours(HOST, port)


@needs_root
def test_who_listens_is_told_where_proc_shows_processes_alone() -> None:
    """As under systemd's ProcSubset=pid, where there is no /proc/net."""
    mounted = "mount -t proc -o subset=pid x /proc && test ! -e /proc/net"
    in_it = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", f'{mounted} || exit 77; exec "$@"', "sh"]
    if subprocess.run([*in_it, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    script = """
import os, socket
from service.loopback import answering
with socket.create_server(("127.0.0.1", 0)) as server:
    assert answering("127.0.0.1", server.getsockname()[1]) == {os.geteuid()}
"""
    run_script(in_it, script)
