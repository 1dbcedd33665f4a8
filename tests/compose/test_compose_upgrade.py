"""A volume of a former version, where one role owned tables and rows, is taken over by `make up`; so is its backup."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from deployment import Deployment, run, write_secrets
from psycopg.errors import InsufficientPrivilege

# What the entry point of the postgres image ran in a new volume.
FORMER = """
CREATE ROLE barlow LOGIN PASSWORD '{barlow}';
CREATE ROLE mlflow LOGIN PASSWORD '{mlflow}';
CREATE DATABASE barlow OWNER barlow TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
CREATE DATABASE mlflow OWNER mlflow TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
REVOKE ALL ON DATABASE barlow, mlflow FROM PUBLIC;
"""
MIGRATE = "from service.database.migrate import *; upgrade(Settings(owner_database_url=None), '0004')"
LATER = ("BARLOW_OWNER_PASSWORD", "BARLOW_MLFLOW_TOKEN")
"""Secrets that it did not have."""


@pytest.fixture
def former(images: None, tmp_path: Path) -> Iterator[Deployment]:
    """A system whose databases are as a former version left them, and whose .env lacks what came later."""
    made = Deployment(tmp_path)
    try:
        made.compose("up", "--detach", "--wait", "postgres")
        psql = "PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U postgres -qv ON_ERROR_STOP=1"
        passwords = {name: made.secret(f"{name.upper()}_DATABASE_PASSWORD") for name in ("barlow", "mlflow")}
        made.compose("exec", "-T", "postgres", "sh", "-c", psql, text=FORMER.format(**passwords))
        made.compose("run", "--rm", "-T", "--no-deps", "migrate", "python", "-c", MIGRATE)
        rows = "INSERT INTO experiments (name) SELECT 'of before ' || n FROM generate_series(1, 100) n"
        made.compose("exec", "-T", "postgres", "sh", "-c", f"{psql} -d barlow", text=rows)
        lines = made.env_file.read_text().splitlines(keepends=True)
        made.env_file.write_text("".join(line for line in lines if not line.startswith(LATER)))
        yield made
    finally:
        write_secrets(made.env_file)
        made.end()


def test_a_volume_of_a_former_version_is_converted_with_every_row(former: Deployment) -> None:
    for _ in range(2):  # as often as one likes
        write_secrets(former.env_file)
        former.up()
        _check_taken_over(former)
        former.down()


def test_a_backup_of_a_former_version_is_restored_into_new_roles(former: Deployment, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / "env").write_text(former.env_file.read_text())
    dump = ["exec", "-T", "postgres", "sh", "-c", "PGPASSWORD=$POSTGRES_PASSWORD pg_dump -h 127.0.0.1 -U postgres -Fc"]
    pack = ["run", "--rm", "--no-deps", "-T", "volumes", "-C", "/data", "-cf", "-"]
    for name in ("barlow", "mlflow"):
        _keep(former.command(*dump[:-1], f"{dump[-1]} {name}"), backup / f"{name}.dump")
    for name in ("runs", "artifacts"):
        _keep(former.command(*pack, name), backup / f"{name}.tar")
    write_secrets(former.env_file)  # Compose wants them for its end, too
    former.end()
    other = Deployment(tmp_path)
    other.env_file.unlink()
    compose = shlex.join(other.command())
    try:
        run(["sh", "docker/restore.sh", str(backup)], COMPOSE=compose, ENV_FILE=str(other.env_file))
        other.up()
        _check_taken_over(other)
    finally:
        other.end()


def _keep(command: list[str], file: Path) -> None:
    """What a command of the former version writes, whose compose file asks for no later secret."""
    run(["sh", "-c", f"{shlex.join(command)} >{shlex.quote(str(file))}"], **dict.fromkeys(LATER, "unused"))


def _check_taken_over(system: Deployment) -> None:
    with psycopg.connect(system.endpoints["database"], autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (100,)
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(owners).fetchall() == [("barlow_owner",)]
        with pytest.raises(InsufficientPrivilege):
            connection.execute("DROP TABLE metrics")
