"""Real servers for every test: PostgreSQL, Redis and MLflow from pip, started when first asked, once per process."""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_kit import run_server
from lab import Lab
from pydantic import SecretStr
from running_stack import Up, barlow_below

from service.database import migrate
from service.database.provisioning import provision
from service.local.ports import port_or_free
from service.local.servers import Mlflow, Postgres, Redis
from service.settings import Settings

# The shell of whoever runs the tests may have a proxy: it is not for servers on this machine.
os.environ.update(no_proxy="127.0.0.1,localhost", NO_PROXY="127.0.0.1,localhost")

# Tests may run under nohup and start what is to hear the end of a terminal: what is heard here is not ignored there.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

_TEMPLATE = "migrated"
_LONGEST_FIRST = ("faults", "worker", "trainer", "local", "end_to_end", "scheduling")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rooms that take longest begin, so that no test process is left with a long file at the end."""
    here = Path(__file__).parent
    twice = [name for name, times in Counter(item.nodeid for item in items).items() if times > 1]
    if twice:
        # A distributed run knows tests by their ids: of those that share one it runs the first, and says nothing.
        raise pytest.UsageError(f"several tests have the id {twice[0]}")

    for item in items:
        for mark in ("faults", "long", "representative", "compose"):
            if item.get_closest_marker(mark) and not _found_by_make(item.path, mark):
                raise pytest.UsageError(f"make does not find {item.nodeid}: its file does not say `mark.{mark}`")

    def turn(item: pytest.Item) -> int:
        room = item.path.relative_to(here).parts[0]
        return _LONGEST_FIRST.index(room) if room in _LONGEST_FIRST else len(_LONGEST_FIRST)

    items.sort(key=turn)


@functools.cache
def _found_by_make(path: Path, mark: str) -> bool:
    """Whether the targets of the Makefile for this mark load the file."""
    return path.parent.name == mark or re.search(rf"\bmark\.{mark}\b", path.read_text()) is not None


@pytest.fixture(scope="session")
def server_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the servers of this test process keep their data; gone afterwards."""
    directory = tmp_path_factory.mktemp("servers")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[Postgres]:
    """A PostgreSQL server with a migrated, empty template database, and the roles of a real one."""
    server = Postgres(server_directory, secrets.token_urlsafe(16), server_directory / "postgres.log", durable=False)
    server.start()
    settings = _as_in_the_field(server, _TEMPLATE).model_copy(
        update={
            "superuser_database_url": SecretStr(server.url("postgres")),
            "mlflow_database_url": SecretStr(server.url("mlflow", "mlflow")),
        }
    )
    provision(settings)
    migrate.upgrade(settings)
    yield server
    server.stop()


def _as_in_the_field(server: Postgres, name: str, **more: Any) -> Settings:
    """Settings of a database that is served as the role that may only read and write rows."""
    return Settings(
        database_url=server.url(name, "barlow"),
        owner_database_url=server.url(name, "barlow_owner"),
        allowed_hosts="barlow",
        **more,
    )


@pytest.fixture
def database(postgres: Postgres, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a fresh, migrated database of the test's own, with a `runs_dir` of its own."""
    name = f"test_{secrets.token_hex(6)}"
    postgres.create_database(name, template=_TEMPLATE)
    yield _as_in_the_field(postgres, name, runs_dir=tmp_path / "runs")
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def served(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a migrated database that all tests of a module share."""
    name = f"served_{secrets.token_hex(6)}"
    postgres.create_database(name, template=_TEMPLATE)
    yield _as_in_the_field(postgres, name, runs_dir=tmp_path_factory.mktemp("runs"))
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def server(served: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real API process over `served`."""
    with run_server(served, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def lab(database: Settings) -> Iterator[Lab]:
    """The ledger on a database of the test's own; what must always hold is checked at the end."""
    lab = Lab(database)
    yield lab
    lab.check()
    lab.engine.dispose()


@pytest.fixture(scope="session")
def redis(server_directory: Path) -> Iterator[Redis]:
    """A Redis server; `redis.url` is what `Settings.redis_url` takes."""
    server = Redis(server_directory, secrets.token_urlsafe(16), server_directory / "redis.log")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mlflow(postgres: Postgres, server_directory: Path) -> Iterator[Mlflow]:
    """An MLflow server (about 7 s to start); `Settings.mlflow_url` and `mlflow_token` take its `url` and `token`."""
    log = server_directory / "mlflow.log"
    api = f"http://127.0.0.1:{port_or_free(0)}"  # nobody is there, until a test has an API listen
    server = Mlflow(server_directory, postgres.url("mlflow", "mlflow"), log, secrets.token_urlsafe(32), api)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fresh_stack(tmp_path: Path) -> Iterator[Up]:
    """A `barlow up` that is not started yet, on a directory of the test's own.

    It lies as on the plainest machine there is, below a home of mode 700, its environment too; in paths with blanks.
    """
    home = tmp_path / "a home"
    home.mkdir(mode=0o700)
    settings = {"BARLOW_HEARTBEAT_SECONDS": "1", "BARLOW_LEASE_SECONDS": "30"}
    up = Up(home / "the lab", settings, barlow=barlow_below(home / "its environment"))
    yield up
    if hasattr(up, "process"):
        up.end()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The whole service, running, with two slots and short ticks."""
    times = {
        "TICK": 0.5,
        "POLL": 3.0,
        "HEARTBEAT": 1.0,
        "LEASE": 30.0,
        "STOP_GRACE": 10.0,
        "RETRY_BACKOFF": 0.2,
        "RECORDER": 0.3,
    }
    settings = {f"BARLOW_{name}_SECONDS": str(value) for name, value in times.items()}
    up = Up(tmp_path_factory.mktemp("stack") / "lab", settings, ("--slots", "2"))
    try:
        up.start()
        yield up
    finally:
        up.end()
