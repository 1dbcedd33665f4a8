"""Roles and databases: made from nothing, and made of what a former version had; who may do what afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, LockNotAvailable
from pydantic import SecretStr
from sqlalchemy import make_url

from service.database import provisioning
from service.database.engine import make_engine, session_factory
from service.database.migrate import NotTheOwner, current_and_head, upgrade
from service.database.provisioning import provision
from service.database.tables import AuditEntry, Experiment
from service.local.servers import Postgres
from service.settings import Settings


@pytest.fixture
def named(postgres: Postgres) -> Iterator[Settings]:
    """Settings of roles and databases that are not there yet, on the server of all tests."""
    name = secrets.token_hex(4)
    roles = {kind: f"{kind}-{name}" for kind in ("app", "owner", "mlflow")}

    def url(role: str, database: str) -> SecretStr:
        return SecretStr(postgres.url(f"{database}_{name}", roles[role], f"of the {role}".replace(" ", "%20")))

    yield Settings(
        database_url=url("app", "run"),
        owner_database_url=url("owner", "run"),
        mlflow_database_url=url("mlflow", "mlflow"),
        superuser_database_url=SecretStr(postgres.url("postgres")),
    )
    for database in ("run", "mlflow"):
        postgres.drop_database(f"{database}_{name}")
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        for role in roles.values():
            connection.execute(f'DROP ROLE IF EXISTS "{role}"')


def connect(url: SecretStr | None) -> psycopg.Connection:
    assert url is not None
    return psycopg.connect(url.get_secret_value(), autocommit=True)


def database_of(url: SecretStr | None) -> str:
    assert url is not None
    return str(make_url(url.get_secret_value()).database)


def test_the_application_reads_and_writes_rows_and_nothing_else(named: Settings) -> None:
    for _ in range(2):  # twice is as good as once
        provision(named)
        upgrade(named)
    engine = make_engine(named)
    current, head = current_and_head(engine)
    assert current == head
    with session_factory(engine).begin() as session:
        session.add(Experiment(name="kept"))
        session.add(AuditEntry(actor="a", user_name="a", action="token.create", subject="b"))
    engine.dispose()
    with connect(named.database_url) as connection:
        connection.execute("LISTEN barlow_events")
        connection.execute("SET lock_timeout = '1s'")
        assert connection.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (True,)
        assert connection.execute("DELETE FROM experiments").rowcount == 1
        for refused in (
            "CREATE TABLE mine (x int)",
            "CREATE SCHEMA mine",
            "CREATE TEMP TABLE mine (x int)",
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
            "ALTER TABLE jobs ADD COLUMN mine int",
            "ALTER TABLE audit DISABLE TRIGGER ALL",
            "DROP TABLE metrics",
            "TRUNCATE metrics",
            "UPDATE alembic_version SET version_num = '0001'",
            "DELETE FROM audit",
            "CREATE ROLE mine",
            "CREATE DATABASE mine",
            "COPY jobs TO PROGRAM 'cat'",
        ):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(refused)


def test_each_reaches_its_own_database_alone(named: Settings, postgres: Postgres) -> None:
    provision(named)
    run, mlflow = database_of(named.database_url), database_of(named.mlflow_database_url)
    urls = {"app": named.database_url, "owner": named.owner_database_url, "mlflow": named.mlflow_database_url}
    databases = (run, mlflow, "postgres", "template1")
    reached = {(role, name) for role, url in urls.items() for name in databases if may_connect(url, name)}
    assert reached == {("app", run), ("owner", run), ("mlflow", mlflow)}
    with connect(named.mlflow_database_url) as connection:
        connection.execute("CREATE TABLE of_its_own (x int)")
    with psycopg.connect(postgres.url("postgres")) as connection:
        power = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
        found = connection.execute(f"SELECT rolname FROM pg_roles WHERE ({power}) AND rolname !~ '^pg_'").fetchall()
        assert found == [("postgres",)]


def may_connect(url: SecretStr | None, database: str) -> bool:
    assert url is not None
    address = url.get_secret_value().rpartition("/")[0] + f"/{database}"
    try:
        psycopg.connect(address).close()
    except psycopg.OperationalError:
        return False
    return True


def as_in_former_versions(named: Settings, postgres: Postgres) -> None:
    """One role that owns the run database and everything in it, and rows of the schema of that version."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        for url in (named.database_url, named.mlflow_database_url):
            assert url is not None
            role, database = url.get_secret_value().split("//")[1].split(":")[0], database_of(url)
            connection.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'former'")
            connection.execute(f'CREATE DATABASE "{database}" OWNER "{role}"')
            connection.execute(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')
    with psycopg.connect(postgres.url(database_of(named.mlflow_database_url)), autocommit=True) as connection:
        connection.execute("CREATE TABLE runs (id serial PRIMARY KEY, at timestamptz DEFAULT now())")
        connection.execute("INSERT INTO runs DEFAULT VALUES")
    former = SecretStr(named.database_url.get_secret_value().replace("of%20the%20app", "former"))
    upgrade(Settings(database_url=former), "0004")
    with connect(former) as connection:
        connection.execute("INSERT INTO experiments (name) SELECT 'experiment ' || n FROM generate_series(1, 100) n")
        connection.execute("CREATE VIEW of_a_user AS SELECT name FROM experiments")


def test_a_server_of_a_former_version_is_converted_with_every_row(named: Settings, postgres: Postgres) -> None:
    as_in_former_versions(named, postgres)
    provision(named)
    with connect(named.database_url) as connection:
        # A service of the former version that still runs notices nothing.
        names = [f"experiment {n}" for n in range(1, 101)]
        rows = connection.execute("SELECT name FROM experiments ORDER BY created_at, id").fetchall()
        assert sorted(row[0] for row in rows) == sorted(names)
        connection.execute("INSERT INTO experiments (name) VALUES ('meanwhile')")
    upgrade(named)
    provision(named)
    upgrade(named)
    run = database_of(named.database_url)
    assert owners(postgres, run) == {run.replace("run_", "owner-")}
    with connect(named.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (101,)
        with pytest.raises(InsufficientPrivilege):
            connection.execute("ALTER TABLE experiments ADD COLUMN mine int")
    mlflow = database_of(named.mlflow_database_url)
    assert owners(postgres, mlflow) == {mlflow.replace("mlflow_", "mlflow-")}
    with connect(named.mlflow_database_url) as connection:
        connection.execute("INSERT INTO runs DEFAULT VALUES")
        connection.execute("ALTER TABLE runs ADD COLUMN name text")


def owners(postgres: Postgres, database: str) -> set[str]:
    """To whom tables, views and sequences of a database belong."""
    with psycopg.connect(postgres.url(database)) as connection:
        query = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        return {row[0].strip('"') for row in connection.execute(query)}


def test_a_conversion_that_was_stopped_goes_on(
    named: Settings, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_in_former_versions(named, postgres)
    run = database_of(named.database_url)
    monkeypatch.setattr(provisioning, "_PATIENCE_SECONDS", 0.0)
    with psycopg.connect(postgres.url(run)) as reader:
        reader.execute("SELECT FROM jobs")
        with pytest.raises(LockNotAvailable):
            provision(named)
    assert len(owners(postgres, run)) == 2, "half of it was done"
    provision(named)
    assert len(owners(postgres, run)) == 1


def test_a_role_that_may_not_migrate_is_told_which_may(named: Settings) -> None:
    provision(named)
    with pytest.raises(NotTheOwner, match="let BARLOW_OWNER_DATABASE_URL name its owner"):
        upgrade(Settings(database_url=named.database_url))


def test_roles_that_are_one_are_refused(named: Settings) -> None:
    with pytest.raises(ValueError, match="roles of different names"):
        provision(named.model_copy(update={"owner_database_url": named.database_url}))
    with pytest.raises(ValueError, match="BARLOW_SUPERUSER_DATABASE_URL is to be postgresql://"):
        provision(named.model_copy(update={"superuser_database_url": None}))
