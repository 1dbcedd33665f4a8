"""The data folder of a `barlow up` of a former version: one superuser, `barlow`, for everything."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg

from service.database import migrate
from service.local.servers import Postgres
from service.settings import Settings

PASSWORD = "of-a-former-version"


def make_former(directory: Path) -> None:
    """A cluster with both databases, the run database of that version with one experiment `of before`."""
    directory.mkdir(mode=0o755)
    server = Postgres(directory, "for-now", directory / "postgres.log", durable=False)
    server.start()
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE another SUPERUSER LOGIN PASSWORD 'for-now'")
    with psycopg.connect(server.url("postgres", "another"), autocommit=True) as connection:
        connection.execute("ALTER ROLE postgres RENAME TO barlow")
        connection.execute(f"ALTER ROLE barlow PASSWORD '{PASSWORD}'")
    with psycopg.connect(server.url("postgres", "barlow", PASSWORD), autocommit=True) as connection:
        connection.execute("DROP ROLE another")
        for name in ("barlow", "mlflow"):
            connection.execute(f"CREATE DATABASE {name}")
    run = server.url("barlow", "barlow", PASSWORD)
    migrate.upgrade(Settings(database_url=run), "0004")
    with psycopg.connect(run) as connection:
        connection.execute("INSERT INTO experiments (name) VALUES ('of before')")
    with psycopg.connect(server.url("mlflow", "barlow", PASSWORD)) as connection:
        connection.execute("CREATE TABLE of_mlflow AS SELECT 7 AS x")
    server.stop()
    state = {"database_password": PASSWORD, "redis_password": PASSWORD, "ports": {}}
    (directory / "local.json").write_text(json.dumps(state))
