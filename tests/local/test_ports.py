"""The ports of a stack: nobody else's from the moment they are chosen, whether or not a server is there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rights import OTHER, needs_root, run_script, thief
from running_stack import wait_until

from service.api.readiness import Parts
from service.local.ports import HOST, keep, port_or_free
from service.local.process import Child
from service.local.servers import Redis
from service.local.stack import Stack
from service.loopback import NotOurs, answering, listeners, require_connected_to_ours
from service.settings import Settings
from service.web.listening import bind

TRIES = f"""
import os, socket, sys
os.setuid({OTHER})
options = socket.SO_REUSEADDR, socket.SO_REUSEPORT
for chosen in ((), options[:1], options[1:], options):
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family) as foe:
                for option in chosen:
                    foe.setsockopt(socket.SOL_SOCKET, option, 1)
                if family == socket.AF_INET6:
                    foe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                foe.bind((host, {{port}}))
                foe.listen()
        except OSError:
            continue
        sys.exit(f"another account listens at {{{{host}}}} with {{{{chosen}}}}")
"""
FIRST = f"""
import os, socket, sys
os.setuid({OTHER})
by_ipv6 = "by IPv6 alone" in sys.argv
with socket.socket(socket.AF_INET6 if by_ipv6 else socket.AF_INET) as foe:
    foe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if by_ipv6:
        foe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    foe.bind(("::" if by_ipv6 else "127.0.0.1", 0))
    if "listens" in sys.argv:
        foe.listen()
    print(foe.getsockname()[1], flush=True)
    input()
    foe.listen()
"""


def _serve(port: int) -> socket.socket:
    """What a server of the stack does."""
    server = bind(HOST, port, shared=True)
    server.listen()
    return server


@contextmanager
def another_account(*arguments: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Another account that has taken a port, and `listens` there at once or when it is told to; the port."""
    command = [sys.executable, "-c", FIRST, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as foe:
        try:
            assert foe.stdout is not None
            yield int(foe.stdout.readline()), foe
        finally:
            foe.kill()


@needs_root
def test_a_kept_port_is_never_another_accounts() -> None:
    with keep(0) as kept:
        tries = TRIES.format(port=kept.port)
        run_script([], tries)  # while the server is on its way
        with _serve(kept.port) as server, socket.create_connection((HOST, kept.port)) as client:
            answer = server.accept()[0]
            run_script([], tries)
            server.close()  # a crash; its connections are still there
            run_script([], tries)
            answer.close()
            client.recv(1)
        run_script([], tries)  # what is left of them is waiting
        with _serve(kept.port):
            run_script([], tries)


needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")

BY_IPV6 = f"""
import os, socket, sys
os.setuid({OTHER})
def taken(host, only):
    foe = socket.socket(socket.AF_INET6)
    foe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    foe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    try:
        foe.bind((host, {{port}}))
        foe.listen()
    except OSError:
        foe.close()
        return None
    return foe
for host in ("::", "::1", "::ffff:127.0.0.1"):
    for only in (1, 0):
        first = taken(host, only)
        if first is not None:
            first.close()
            second = taken("::", 0)
            sys.exit(f"another account takes {{{{host}}}}, and then {{{{second}}}}")
"""


@needs_root
@needs_ipv6
def test_nor_by_ipv6_which_is_given_up_for_both() -> None:
    """Bound for IPv6 alone the port would be counted as theirs, and `localhost` may be ::1."""
    with keep(0) as kept:
        tries = BY_IPV6.format(port=kept.port)
        run_script([], tries)
        with _serve(kept.port):
            run_script([], tries)
        run_script([], tries)


@needs_ipv6
def test_who_listens_for_both_is_seen() -> None:
    with socket.socket(socket.AF_INET6) as both:
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        both.bind(("::", 0))
        both.listen()
        assert listeners(both.getsockname()[1]) == {os.geteuid()}


@needs_root
def test_nor_does_it_become_that_of_one_who_was_there_first_and_did_not_listen() -> None:
    with another_account() as (port, foe), keep(port) as kept:
        assert kept.port == port
        _, said = foe.communicate("\n")
        assert "Address already in use" in said
        with _serve(port):
            pass


def test_who_asks_at_a_kept_port_without_a_server_is_refused_at_once() -> None:
    with keep(0) as kept:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, kept.port))
        with _serve(kept.port):
            socket.create_connection((HOST, kept.port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, kept.port))


def test_a_port_is_kept_for_one_stack() -> None:
    with keep(0) as kept:
        with keep(kept.port) as other:
            assert other.port not in (0, kept.port)
        with _serve(kept.port), keep(kept.port) as other:
            assert other.port != kept.port
        assert port_or_free(kept.port) != kept.port


def test_the_next_start_gets_the_port_beside_what_is_left_of_connections() -> None:
    with keep(0) as kept:
        port = kept.port
        with _serve(port) as server, socket.create_connection((HOST, port)) as client, server.accept()[0]:
            pass
        client.close()
    with keep(port) as again:
        assert again.port == port


def test_a_part_of_the_stack_keeps_its_ports_and_nothing_that_it_starts_does(tmp_path: Path) -> None:
    """As the worker, which lets its ranks end first where `barlow up` was killed, and records meanwhile."""
    log = tmp_path / "log"
    program = "import subprocess, time; subprocess.run(['ls', '-l', '/proc/self/fd']); print('.', flush=True)"
    program += "; time.sleep(99)"
    with keep(0) as kept:
        port, names = kept.port, {os.readlink(f"/proc/self/fd/{held.fileno()}") for held in kept.sockets}
        child = Child("part", [sys.executable, "-c", program], log=log, keeps=kept.sockets)
        child.start()
    try:
        child.wait_ready(lambda: log.read_text().endswith(".\n"), seconds=60)
        assert "/dev/null" in log.read_text()
        assert not any(name in log.read_text() for name in names)
        assert names <= {os.readlink(entry) for entry in Path(f"/proc/{child.pid}/fd").iterdir()}
        with pytest.raises(OSError, match="already in use"):
            bind(HOST, port)
    finally:
        child.stop()
    bind(HOST, port).close()


@needs_root
@pytest.mark.parametrize("name", ["api", "redis"])
@pytest.mark.parametrize("how", ["by IPv4", pytest.param("by IPv6 alone", marks=needs_ipv6)])
def test_a_stack_whose_port_is_another_accounts_now_takes_another_one_and_tells(
    tmp_path: Path, name: str, how: str
) -> None:
    said: list[str] = []
    with another_account("listens", how) as (port, _):
        stack = Stack(tmp_path, api_port=0, mlflow_port=0, report=said.append)
        stack._wanted[name] = port
        stack._take_lock()
        ports = stack._load_state()["ports"]
        stack.stop()
    assert port not in ports.values()
    then = {
        "api": "Nothing of yours is to ask there for api any more: it would show that account its token",
        "redis": "The stack sends no password there; what else of yours asks for redis is to ask at the new port",
    }
    assert said == [
        f"port {port} is taken by another account (user id {OTHER}); {name} gets {ports[name]}. {then[name]}"
    ]


ACCEPTS = f"""
import os, socket
os.setuid({OTHER})
with socket.create_server(("127.0.0.1", 0)) as foe:
    print(foe.getsockname()[1], flush=True)
    connection = foe.accept()[0]
print("accepted", flush=True)
input()
"""


@needs_root
def test_a_connection_is_of_who_has_accepted_it_whoever_listens_now() -> None:
    command = [sys.executable, "-c", ACCEPTS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as foe:
        assert foe.stdout is not None
        port = int(foe.stdout.readline())
        with socket.create_connection((HOST, port)) as theirs:
            assert foe.stdout.readline() == "accepted\n"
            with bind(HOST, port) as server:
                server.listen()
                with pytest.raises(NotOurs, match=f"by another account \\(user id {OTHER}\\)"):
                    require_connected_to_ours(theirs)
                with socket.create_connection((HOST, port)) as ours:
                    require_connected_to_ours(ours)  # not accepted yet
                    with server.accept()[0]:
                        require_connected_to_ours(ours)
        foe.communicate("\n")


@needs_root
@needs_ipv6
def test_a_server_starts_beside_another_account_that_listens_there_by_ipv6_alone(tmp_path: Path) -> None:
    """It came after the port was chosen, and gets no connection to 127.0.0.1."""
    with another_account("listens", "by IPv6 alone") as (port, _):
        server = Redis(tmp_path, "secret", tmp_path / "log")
        try:
            server.start(port)
            settings = Settings(database_url="postgresql://unused", redis_url=server.url, same_account=True)
            assert Parts(settings)._ask_broker()["broker"].ok
            with socket.create_connection((HOST, port)) as connection:
                require_connected_to_ours(connection)
            with socket.create_connection(("::1", port)) as connection, pytest.raises(NotOurs, match=str(OTHER)):
                require_connected_to_ours(connection)
        finally:
            server.stop()


@needs_root
@needs_ipv6
def test_a_server_at_all_addresses_is_ours_beside_another_s_of_ipv6() -> None:
    with another_account("listens", "by IPv6 alone") as (port, _), bind("0.0.0.0", port) as server:
        server.listen()
        for host in (HOST, "::ffff:127.0.0.1"):
            assert answering(host, port) == {os.geteuid()}
        assert answering("::1", port) == {OTHER}
        with socket.create_connection((HOST, port)) as connection:
            require_connected_to_ours(connection)


@needs_ipv6
def test_who_listens_for_both_answers_by_both() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        for host in (HOST, "::1"):
            assert answering(host, both.getsockname()[1]) == {os.geteuid()}


def test_a_stack_keeps_its_ports_from_their_choice_to_its_end(tmp_path: Path) -> None:
    stack = Stack(tmp_path, api_port=0, mlflow_port=0, report=print)
    stack._take_lock()
    ports = stack._load_state()["ports"]
    for name in ("api", "mlflow"):
        with pytest.raises(OSError, match="already in use"):
            bind(HOST, ports[name])
    stack.stop()
    for name in ("api", "mlflow"):
        bind(HOST, ports[name]).close()


def _ports_of(folder: Path, **named: int) -> dict[str, int]:
    """What a start of the stack chooses."""
    stack = Stack(folder, report=print, **named)
    stack._take_lock()
    ports: dict[str, int] = stack._load_state()["ports"]
    stack.stop()
    return ports


def test_a_second_stack_of_a_host_has_its_ports_at_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the usual ones have become free: whoever asks it, with a token, asks where it was."""
    with socket.create_server((HOST, 0)) as api, socket.create_server((HOST, 0)) as mlflow:
        monkeypatch.setattr(
            "service.local.stack._FIRST", {"api": api.getsockname()[1], "mlflow": mlflow.getsockname()[1]}
        )
        ports = _ports_of(tmp_path)
        assert _ports_of(tmp_path) == ports
    assert _ports_of(tmp_path) == ports
    with keep(0) as free:
        named = free.port
    assert _ports_of(tmp_path, api_port=named) == {**ports, "api": named} == _ports_of(tmp_path)


def test_a_server_whose_port_was_taken_while_it_was_away_names_the_remedy(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as thief:
        port = thief.getsockname()[1]
        words = rf"port {port}: Address already in use by another program of this account; stop `barlow up` and start"
        with pytest.raises(RuntimeError, match=words):
            Redis(tmp_path, "secret", tmp_path / "log").start(port)


@needs_root
@pytest.mark.parametrize("module", ["service.api", "service.tracking"])
def test_a_server_whose_kept_port_was_taken_says_by_whom_and_the_stack_hands_it_on(tmp_path: Path, module: str) -> None:
    said: list[str] = []
    stack = Stack(tmp_path, report=said.append)
    with thief() as other:
        child = Child(
            "server",
            [sys.executable, "-P", "-m", module],
            log=tmp_path / "log",
            environment={
                **{f"BARLOW_{kind}_PORT": str(other.port) for kind in ("API", "MLFLOW")},
                **{f"BARLOW_{kind}_PORT_SHARED": "true" for kind in ("API", "MLFLOW")},
                **{f"BARLOW_{kind}DATABASE_URL": "postgresql://unused" for kind in ("", "MLFLOW_")},
                "BARLOW_MLFLOW_ARTIFACTS_DIR": str(tmp_path),
                "BARLOW_MLFLOW_HOME": str(tmp_path / "home"),
                "BARLOW_MLFLOW_TOKEN": "x" * 32,
            },
        )
        stack._start("server", child.start, lambda: child)
        wait_until(lambda: child.exit_code() is not None, 60)
        stack.tend()
    (line,) = said
    assert (
        f"port {other.port}: Address already in use by another account (user id {OTHER}); stop `barlow up` and" in line
    )
    assert line.startswith("server ended with exit code 1: barlow ")
