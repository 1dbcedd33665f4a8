"""The embedded servers: start, survive kill -9, go on with their data."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
import redis as redis_client
from rights import needs_root, thief

from service.local.process import Child
from service.local.servers import Mlflow, Postgres, Redis
from service.settings import Settings


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A directory whose path is longer than a Unix socket's may be, below one that others cannot enter."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    return closed / ("deep" * 30)


def _postgres(directory: Path) -> Postgres:
    return Postgres(directory, "secret", directory / "postgres.log", durable=False)


def test_a_part_of_the_stack_is_neither_led_elsewhere_nor_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "MLFLOW_TRACKING_URI", "BARLOW_ADMIN_TOKEN", "BARLOW_TICK_SECONDS"):
        monkeypatch.setenv(name, "x")
    command = [sys.executable, "-c", "import os; print(*os.environ)"]
    given = {}
    for ours in (False, True):
        log = tmp_path / f"names-{ours}.log"
        child = Child("names", command, log=log, ours=ours)
        child.start()
        child.wait_ready(lambda child=child: child.exit_code() is not None, seconds=60)
        given[ours] = set(log.read_text().split())
        assert given[ours].isdisjoint({"PGHOST", "MLFLOW_TRACKING_URI", "BARLOW_ADMIN_TOKEN"})
        assert "PATH" in given[ours]
    assert "BARLOW_TICK_SECONDS" in given[True] - given[False]


@needs_root
def test_no_password_goes_to_another_account_that_has_taken_the_port(tmp_path: Path) -> None:
    """Which it can while the server is still on its way there."""
    postgres, redis = Postgres(tmp_path, "secret", tmp_path / "log"), Redis(tmp_path, "secret", tmp_path / "log")
    tracking = Mlflow(tmp_path, "postgresql://unused", tmp_path / "log", "secret")
    with thief() as other:
        for server in (postgres, redis, tracking):
            server.port = other.port
            assert not server._answers()
        assert other.heard() == set()


def test_no_password_of_postgres_is_sent_to_a_server_that_asks_for_it_in_clear(tmp_path: Path) -> None:
    """As one that listens where ours did, before it crashed."""
    server, heard = _postgres(tmp_path), b""
    with socket.create_server(("127.0.0.1", 0)) as thief, ThreadPoolExecutor() as pool:
        server.port = thief.getsockname()[1]
        asked = pool.submit(psycopg.connect, server.url("lab"))
        with thief.accept()[0] as connection, contextlib.suppress(ConnectionResetError):
            while b"postgres" not in (said := connection.recv(10_000)):
                connection.sendall(b"N")  # no TLS
            connection.sendall(b"R" + struct.pack(">II", 8, 3))  # the password in clear
            while said := connection.recv(10_000):
                heard += said
        with pytest.raises(psycopg.OperationalError, match="scram-sha-256"):
            asked.result()
    assert b"secret" not in heard


def test_postgres_keeps_its_data_over_kill_and_stale_lock(deep: Path) -> None:
    server = Postgres(deep, "secret", deep / "postgres.log")
    server.start()
    server.create_database("lab")
    with psycopg.connect(server.url("lab"), autocommit=True) as connection:
        assert connection.execute("SHOW server_version_num").fetchone()[0] >= "180000"
        connection.execute("CREATE TABLE t AS SELECT 7 AS x")
    os.kill(server.child.pid, signal.SIGKILL)
    server.child.stop()

    # What a container's restart leaves: the lock file names a process that lives but is somebody else.
    lock = deep / "postgres" / "postmaster.pid"
    assert lock.exists()
    lock.write_text("\n".join([str(os.getpid()), *lock.read_text().splitlines()[1:]]) + "\n")
    again = Postgres(deep, "secret", deep / "postgres.log")
    again.start(server.port)
    assert again.port == server.port
    with psycopg.connect(again.url("lab")) as connection:
        assert connection.execute("SELECT x FROM t").fetchone() == (7,)
    again.stop()
    assert not lock.exists()


def test_postgres_takes_over_a_running_server_of_its_cluster(tmp_path: Path) -> None:
    former = _postgres(tmp_path)
    former.start()
    server = _postgres(tmp_path)
    server.start(former.port)
    assert former.child.exit_code() == 0
    assert server.port == former.port
    server.stop()


def test_postgres_asks_for_the_password(postgres: Postgres) -> None:
    wrong = postgres.url("postgres").replace(postgres.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(wrong)


def test_start_failure_shows_the_log(tmp_path: Path) -> None:
    server = _postgres(tmp_path)
    server.start()
    server.stop()
    (tmp_path / "postgres" / "postgresql.conf").write_text("no_such_setting = on\n")
    with pytest.raises(RuntimeError, match="no_such_setting"):
        server.start()


@needs_root
def test_a_root_that_may_not_pass_on_its_right_to_enter_is_told_what_to_do(deep: Path) -> None:
    script = "import sys, pathlib, service.local.process as p; p.require_reachable(pathlib.Path(sys.argv[1]))"
    deep.mkdir()
    (program := deep / "postgres").touch(mode=0o755)
    ask = [sys.executable, "-c", script, str(program)]
    subprocess.run(ask, check=True)
    refused = subprocess.run(
        ["setpriv", "--bounding-set=-setpcap", "--", *ask], capture_output=True, text=True, check=False
    )
    assert "start as an ordinary user, or install where others may enter" in refused.stderr


def test_redis_keeps_its_queue_over_a_kill(deep: Path) -> None:
    server = Redis(deep, "secret", deep / "redis.log")
    server.start()
    with redis_client.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with pytest.raises(redis_client.RedisError):  # the connection ends, perhaps before the reason has come
            client.lpush("queue", bytes(2 << 20))
        client.lpush("queue", "a")

    server.stop()
    again = Redis(deep, "secret", deep / "redis.log")
    again.start(server.port)
    with redis_client.Redis.from_url(again.url) as client:
        assert client.lrange("queue", 0, -1) == [b"a"]
    again.stop()
    assert oct((deep / "redis" / "redis.conf").stat().st_mode & 0o777) == "0o600"


def test_redis_reads_the_settings_of_its_own_folder_whatever_its_name(tmp_path: Path) -> None:
    """As the path of a file they would be taken for a pattern: `lab[1]*` fits the folder of somebody else."""
    other = tmp_path / "lab1" / "redis" / "redis.conf"
    other.parent.mkdir(parents=True)
    other.write_text("requirepass other\nport 0\n")
    folder = tmp_path / "lab[1]*"
    server = Redis(folder, "secret", tmp_path / "redis.log")
    server.start()
    try:
        with redis_client.Redis.from_url(server.url) as client:
            assert client.config_get("port", "bind", "requirepass", "appendonly") == {
                "port": str(server.port), "bind": "127.0.0.1", "requirepass": "secret", "appendonly": "yes",
            }  # fmt: skip
        with redis_client.Redis(port=server.port) as stranger, pytest.raises(redis_client.AuthenticationError):
            stranger.ping()
    finally:
        server.stop()
    assert (folder / "redis" / "appendonlydir").is_dir()


def test_redis_takes_over_the_queue_of_an_older_one(tmp_path: Path) -> None:
    """One file of commands beside the settings, as Redis 6 wrote it."""
    (tmp_path / "redis").mkdir()
    commands = (("SELECT", "0"), ("RPUSH", "queue", "a"))
    file = "".join(f"*{len(c)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in c) for c in commands)
    (tmp_path / "redis" / "appendonly.aof").write_bytes(file.encode())
    server = Redis(tmp_path, "secret", tmp_path / "redis.log")
    server.start()
    with redis_client.Redis.from_url(server.url) as client:
        assert client.lrange("queue", 0, -1) == [b"a"]
        assert tuple(map(int, client.info("server")["valkey_version"].split("."))) >= (9, 1, 2)
    server.stop()


def test_mlflow_answers_with_artifacts_through_the_server(mlflow: Mlflow) -> None:
    created = httpx.post(
        f"{mlflow.url}/api/2.0/mlflow/experiments/create", json={"name": secrets.token_hex(4)}, headers=mlflow.headers
    )
    assert created.status_code == 200
    got = httpx.get(
        f"{mlflow.url}/api/2.0/mlflow/experiments/get", params=created.json(), headers=mlflow.headers
    ).json()
    assert got["experiment"]["artifact_location"].startswith("mlflow-artifacts:")


def test_databases_are_fresh_and_migrated(database: Settings) -> None:
    with psycopg.connect(database.database_url.get_secret_value()) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
